import Glibc

/// Which calls fail although nothing in the simulated world makes them, and how often.
package struct SimFaults: Sendable {
  /// Failures in a thousand calls that a correct caller survives without losing a connection.
  package var mild = 0
  /// Failures in a thousand calls that cost the connection.
  package var fatal = 0
  /// Out of descriptors or memory, in a thousand calls that make something.
  package var scarce = 0
  /// The next send fails with this errno, once.
  package var nextSend: Int32 = 0
  /// The next socket cannot be made, for this errno, once.
  package var nextSocket: Int32 = 0
  /// No pipe can be had.
  package var noPipes = false
  /// Pipes come in this capacity at most (`pipe-user-pages-soft`).
  package var pipeCapacity: Int32 = 1 << 20

  package init() {}

  static let scarcity: [Int32] = [EMFILE, ENFILE, ENOMEM]
  static let scarcityOfAccept: [Int32] = [EMFILE, ENFILE, ENOMEM, ENOBUFS]
  static let mildOfAccept: [Int32] = [ECONNABORTED, EINTR, EAGAIN]
  static let mildOfReceive: [Int32] = [EINTR, ENOBUFS, EAGAIN]
  static let mildOfSend: [Int32] = [EINTR, EAGAIN]
  static let fatalOfStream: [Int32] = [ECONNRESET, ETIMEDOUT, EHOSTUNREACH]
  static let fatalOfConnect: [Int32] = [
    ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOMEM, EADDRNOTAVAIL,
  ]
}

/// What the process asked of one simulated kernel, for tests that count calls.
package struct SimCalls: Sendable {
  package var accepts = 0
  package var receives = 0
  package var sends = 0
  package var polls = 0
  package var cancels = 0
  package var connects = 0
  package var sockets = 0
  package var pipes = 0
  package var splices = 0
  package var turns = 0
  /// Receives that ended because no buffer was free.
  package var starvations = 0
}
