internal import Glibc
internal import CUring

/// What a core asks of the operating system, in the form of operations that complete.
///
/// This is the seam under everything: `UringKernel` and `EpollKernel` implement it on Linux, a simulated one in tests.
/// One instance a core, used only by the core's thread (except `wake`). Descriptors are always non-blocking.
///
/// The asynchronous operations each end with exactly one completion whose `more` is false. A descriptor has at most one
/// read-side operation (accept, receive, poll for reading) and one write-side operation (connect, poll for writing) at a
/// time; sends are separate, at most one at a time. Nothing that an operation points at is needed after the next `turn`.
open class Kernel {
  /// Receive buffers; completions of `receive` hand them out, `release` takes them back.
  public let buffers: BufferPool
  /// What the last `turn` brought.
  public private(set) final var completions = CompletionBatch()
  /// What has completed since: a backend collects here, and `deliver` swaps the two.
  public private(set) final var arrived = CompletionBatch()

  /// - Parameter buffers: the core's own receive buffers.
  public init(buffers: BufferPool) { self.buffers = buffers }

  /// Ends a turn: what has arrived becomes what the turn brought.
  public final func deliver() {
    completions.removeAll()
    swap(&completions, &arrived)
  }

  // MARK: Operations that complete

  /// Accepts connections for ever: one completion (`more`) for each, its result the new descriptor. Ends with an error
  /// such as `EMFILE`, or `ECANCELED`.
  open func accept(_ listener: Int32, _ token: Token) { abstract() }

  /// Connects a socket; the result is 0 or a negative errno.
  open func connect(_ descriptor: Int32, to address: Address, _ token: Token) { abstract() }

  /// Receives for ever: each completion carries a buffer and its byte count. Ends with 0 at the end of the stream,
  /// with `ENOBUFS` when no buffer was free (ask again once some are), or with another error.
  open func receive(_ descriptor: Int32, _ token: Token) { abstract() }

  /// Sends as much of the queue as the socket takes at once: the result is the byte count, short or `EAGAIN` when the
  /// socket is full (then poll for writing). The queue must stay as it is until the completion.
  ///
  /// - Parameter prompt: true if the caller needs the completion now. A send that went out in full may otherwise be
  ///   reported together with whatever wakes the core next.
  open func send(_ descriptor: Int32, _ queue: borrowing BufferQueue, prompt: Bool, _ token: Token) {
    abstract()
  }

  /// Sends as much of `bytes` as the socket takes at once; as above. The memory must stay until the completion.
  open func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, prompt: Bool, _ token: Token) {
    abstract()
  }

  /// Completes once when the descriptor is ready; the result is the set of `Readiness` bits that hold.
  open func poll(_ descriptor: Int32, for readiness: Readiness, _ token: Token) { abstract() }

  /// Ends the operation with `ECANCELED`, unless it has already ended by itself.
  open func cancel(_ token: Token, on descriptor: Int32) { abstract() }

  /// Returns a receive buffer.
  open func release(_ buffer: UInt16) { abstract() }

  /// Sends off what was asked for, waits until something completes or `deadline` passes, and fills `completions`.
  open func turn(until deadline: Instant) { abstract() }

  /// The monotonic clock.
  open var now: Instant {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec))
  }

  /// Makes `turn` of this kernel return soon, with a completion of `Token.wake`. The only call allowed from another
  /// thread. `from`, when given, is the calling thread's own kernel.
  open func wake(from: Kernel?) { abstract() }

  // MARK: Calls that return at once

  /// A new non-blocking stream socket; a negative errno on failure.
  open func socket(family: Int32) -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = Glibc.socket(family, kind, 0)
    return descriptor < 0 ? -errno : descriptor
  }

  /// Sets an integer socket option; failures are of no consequence to any caller (an option the family lacks).
  open func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) {
    Sockets.setOption(descriptor, level, name, value)
  }

  /// The address of the other end, or nil when it is already gone.
  open func peerAddress(_ descriptor: Int32) -> Address? { unsafe Sockets.address(descriptor, getpeername) }

  /// The address of this end.
  open func localAddress(_ descriptor: Int32) -> Address? { unsafe Sockets.address(descriptor, getsockname) }

  /// Reads at most `room.count` bytes that are there already; 0 at the end, negative errno (`EAGAIN`) otherwise.
  open func read(_ descriptor: Int32, into room: UnsafeMutableRawBufferPointer) -> Int {
    let count = unsafe recv(descriptor, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
    return count < 0 ? -Int(errno) : count
  }

  /// Ends this end's direction of the stream (`SHUT_WR`): the peer reads the end after the last byte.
  open func halfClose(_ descriptor: Int32) { Glibc.shutdown(descriptor, Int32(SHUT_WR)) }

  /// Probes the peer after that much silence and as often again, nine times; ends the connection when sent bytes stay
  /// unacknowledged for `giveUp`. Zero leaves either to the system. Without effect on unix sockets.
  open func setKeepalive(_ descriptor: Int32, after silence: Instant.Span, giveUp: Instant.Span) {
    Sockets.setKeepalive(descriptor, after: silence, giveUp: giveUp)
  }

  /// True when the peer has reset the connection, although a read may report an end of stream: Linux tells the error of
  /// a socket once, and a partly successful send or splice swallows it. Only asked before we have closed our own direction.
  open func isReset(_ descriptor: Int32) -> Bool { rw_tcp_is_closed(descriptor) }

  /// A connection that waits in the listener's queue, or a negative errno (`EAGAIN` when there is none).
  open func acceptNow(_ listener: Int32) -> Int32 { rw_accept(listener) }

  /// Closes the descriptor, once. Operations on it must have ended.
  open func close(_ descriptor: Int32) {
    let result = Glibc.close(descriptor)
    // The second time it may be the number of somebody else's connection.
    precondition(result == 0 || errno != EBADF, "a descriptor was closed twice")
  }

  /// Closes the descriptor so that the peer gets a reset instead of an orderly end.
  open func reset(_ descriptor: Int32) {
    var linger = linger(l_onoff: 1, l_linger: 0)
    unsafe setsockopt(
      descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    close(descriptor)
  }

  /// A pipe to splice through, at best of the asked capacity; nil when the process is out of descriptors.
  open func makePipe(capacity: Int32) -> Pipe? {
    var ends: (Int32, Int32) = (-1, -1)
    let granted = unsafe withUnsafeMutablePointer(to: &ends) { pair in
      unsafe pair.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe rw_pipe($0, capacity) }
    }
    return granted < 0 ? nil : Pipe(readEnd: ends.0, writeEnd: ends.1, capacity: granted)
  }

  /// Closes both ends; bytes inside are lost.
  open func closePipe(_ pipe: Pipe) {
    Glibc.close(pipe.readEnd)
    Glibc.close(pipe.writeEnd)
  }

  /// `splice(2)`, never waiting: bytes moved, 0 at the end of the source, negative errno.
  open func splice(from: Int32, to: Int32, count: Int) -> Int { rw_splice(from, to, count) }

  private func abstract(_ function: StaticString = #function) -> Never {
    preconditionFailure("\(function) must be implemented by the backend")
  }
}

/// Readiness bits of `poll`, as `poll(2)` has them.
public struct Readiness: OptionSet, Sendable {
  /// The `poll(2)` bits.
  public let rawValue: Int32
  /// From `poll(2)` bits.
  public init(rawValue: Int32) { self.rawValue = rawValue }
  /// Bytes, a connection or the end of the stream can be read.
  public static let readable = Readiness(rawValue: 0x001)
  /// There is room to send.
  public static let writable = Readiness(rawValue: 0x004)
}

/// The two ends of a pipe.
public struct Pipe: Sendable {
  /// Where bytes come out.
  public let readEnd: Int32
  /// Where bytes go in.
  public let writeEnd: Int32
  /// Bytes that fit, if they are whole pages.
  public let capacity: Int32
  /// Wraps two descriptors.
  public init(readEnd: Int32, writeEnd: Int32, capacity: Int32) {
    self.readEnd = readEnd
    self.writeEnd = writeEnd
    self.capacity = capacity
  }
}

extension Token {
  /// Completes when another thread called `Kernel.wake`.
  public static let wake = Token(owner: 0, operation: 1, handle: Handle(slot: 0, generation: 0))
  /// Operations inside a backend whose completions nobody outside sees.
  static let ignored = Token(owner: 0, operation: 2, handle: Handle(slot: 0, generation: 0))
}
