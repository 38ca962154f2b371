import Glibc

/// Which calls fail although nothing in the simulated world makes them, and how often.
public struct SimFaults: Sendable {
  /// Failures in a thousand calls that a correct caller survives without losing a connection.
  public var mild = 0
  /// Failures in a thousand calls that cost the connection.
  public var fatal = 0
  /// Out of descriptors or memory, in a thousand calls that make something.
  public var scarce = 0
  /// The next send fails with this errno, once.
  public var nextSend: Int32 = 0
  /// The next socket cannot be made, for this errno, once.
  public var nextSocket: Int32 = 0
  /// No pipe can be had.
  public var noPipes = false
  /// Pipes come in this capacity at most (`pipe-user-pages-soft`).
  public var pipeCapacity: Int32 = 1 << 20

  public init() {}

  static let scarcity: [Int32] = [EMFILE, ENFILE, ENOMEM]
  static let scarcityOfAccept: [Int32] = [EMFILE, ENFILE, ENOMEM, ENOBUFS]
  static let mildOfAccept: [Int32] = [ECONNABORTED, EINTR, EAGAIN]
  static let mildOfReceive: [Int32] = [EINTR, ENOBUFS, EAGAIN]
  static let mildOfSend: [Int32] = [EINTR, EAGAIN]
  static let fatalOfStream: [Int32] = [ECONNRESET, ETIMEDOUT, EHOSTUNREACH]
  static let fatalOfConnect: [Int32] = [ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOMEM, EADDRNOTAVAIL]
}

/// What the process asked of one simulated kernel, for tests that count calls.
public struct SimCalls: Sendable {
  public var accepts = 0
  public var receives = 0
  public var sends = 0
  public var polls = 0
  public var cancels = 0
  public var connects = 0
  public var sockets = 0
  public var pipes = 0
  public var splices = 0
  public var turns = 0
  /// Receives that ended because no buffer was free.
  public var starvations = 0
}
