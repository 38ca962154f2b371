internal import Glibc
internal import Reactor

/// One direction of a relayed connection, as a machine: events in, one action at a time out, no I/O of its own.
///
/// It starts on the copy path (receive into pool buffers, one gathered send), which is the cheapest way for small
/// messages. It moves to splice when the direction streams or when the destination pushes back, and returns when
/// transfers stay small. Received bytes that cannot leave go to a private backlog, so that a stuck destination never
/// keeps the core's shared buffers. Bytes leave in the order backlog, queue, pipe: a later place is filled only once
/// the earlier ones are empty and closed for good.
struct Pump: ~Copyable {
  /// What the owner has to do next; it reports the outcome through the event methods.
  enum Action: Equatable {
    /// Arm the multishot receive on the source.
    case receive
    /// Cancel that receive, or the waits below.
    case cancelReceive, cancelPollSource, cancelPollDestination
    /// Move the queue to the end of the backlog: `backUp`.
    case backUp
    /// Send the backlog to the destination.
    case sendBacklog
    /// Send the queue to the destination.
    case sendQueue
    /// Splice from the source into the pipe, borrowing one first if there is none.
    case fill
    /// Splice from the pipe to the destination.
    case drain
    /// Give the pipe back: `takePipe`.
    case returnPipe
    /// Wait until the source can be read.
    case pollSource
    /// Wait until the destination takes bytes again.
    case pollDestination
    /// Everything has left: pass the end of the stream on.
    case halfClose
    /// Nothing until the next event.
    case none
  }

  /// How the direction stands.
  enum Outcome: Equatable {
    /// Bytes may still come.
    case open
    /// The end of the stream was passed on after the last byte.
    case ended
    /// The source broke, with this errno; what it sent before has left.
    case sourceBroke(Int32)
    /// The destination broke, with this errno; bytes may have been lost, as TCP does.
    case destinationBroke(Int32)
  }

  private enum Mode { case copying, turning, splicing }

  /// A readable event of this size is better spliced than copied (see `docs/decisions`).
  private static let largeSend = 8192
  private static let largeSendsToSplice: UInt8 = 3
  private static let smallFill = 4096
  private static let smallFillsToCopy: UInt8 = 16
  /// Bytes kept for a destination that is still looked for.
  private static let heldBytes = 64 << 10
  /// Pipe loads a direction moves before it lets the others have a turn.
  private static let fillsATurn: UInt8 = 4

  /// How the direction stands; never changes back from anything but `open`.
  private(set) var outcome = Outcome.open
  /// Set by the owner once the way back to the source is closed: its connection may then be gone without having broken.
  var isReturnClosed = false
  /// Bytes that have left to the destination.
  private(set) var moved: UInt64 = 0
  /// Bytes that have come in, by whatever way, preloaded ones included.
  private(set) var entered: UInt64 = 0
  /// Received bytes waiting in pool buffers.
  private(set) var queue = BufferQueue()
  /// Received bytes waiting in memory of this direction alone.
  private(set) var backlog = Backlog()
  /// The pipe that bytes are on their way through.
  private(set) var pipe: Pipe?
  /// Bytes in the pipe.
  private(set) var piped = 0

  private var mode = Mode.copying
  private var receiving = false
  private var cancelling = false
  private var starved = false
  private var sourceEnded = false
  private var sourceFailure: Int32 = 0
  private var failureElsewhere: Int32 = 0
  private var sourceReady = false
  /// A poll said that the source can be read, and nothing has been read since.
  private var sourceReported = false
  private var awaitsSource = false
  private var destinationFull = false
  private var awaitsDestination = false
  private var cancelledWaits = (source: false, destination: false)
  private var sending = false
  private var offered = 0
  private var largeSends: UInt8 = 0
  private var smallFills: UInt8 = 0
  private var fillsLeft: UInt8 = 0

  /// True while the kernel still has an operation of this direction.
  var isInFlight: Bool { receiving || sending || awaitsSource || awaitsDestination }

  /// True while a send's outcome is not known.
  var isSending: Bool { sending }

  /// True once the source has ended or broken.
  var isSourceOver: Bool { sourceEnded || sourceFailure != 0 }

  /// True while received bytes wait to leave.
  var hasBytes: Bool { !queue.isEmpty || !backlog.isEmpty || piped > 0 }

  /// True while the bytes move by splice.
  var isSplicing: Bool { mode == .splicing }

  /// True when buffers ran out and the receive waits for `buffersFreed`.
  var isStarved: Bool { starved }

  /// True when a send's outcome is needed at once, because something has to follow it.
  var needsPromptSend: Bool { mode != .copying || !receiving || !backlog.isEmpty }

  /// Puts bytes in front of all that will be received: a PROXY header, or what followed one.
  mutating func preload(_ bytes: [UInt8]) {
    entered &+= UInt64(bytes.count)
    unsafe bytes.withUnsafeBytes { source in
      guard let start = source.baseAddress else { return }
      unsafe backlog.append(source.count) { unsafe $0.copyMemory(from: start, byteCount: source.count) }
    }
  }

  // MARK: Decisions

  /// The next thing to do, to be done before the next call; `none` when only an event can help.
  mutating func next() -> Action {
    if outcome != .open { return nextWhenOver() }
    // At once: a source that brings more each turn never leaves the queue empty.
    if mode == .turning, receiving, !cancelling { return stopReceiving() }
    if sending { return .none }
    if destinationFull { return nextWhenBlocked() }
    if !backlog.isEmpty { return offer(backlog.count, .sendBacklog) }
    if !queue.isEmpty { return offer(queue.byteCount, .sendQueue) }
    if piped > 0 { return .drain }
    if sourceFailure != 0 {
      outcome = .sourceBroke(sourceFailure)
      return nextWhenOver()
    }
    return sourceEnded ? nextAtEnd() : nextWhenEmpty()
  }

  private mutating func offer(_ count: Int, _ action: Action) -> Action {
    sending = true
    offered = count
    return action
  }

  /// Stuck: whatever still arrives moves out of the shared buffers, and no more is asked for.
  private mutating func nextWhenBlocked() -> Action {
    if !awaitsDestination {
      awaitsDestination = true
      return .pollDestination
    }
    if !queue.isEmpty { return .backUp }
    return stopReceiving()
  }

  private mutating func stopReceiving() -> Action {
    guard receiving, !cancelling else { return .none }
    cancelling = true
    return .cancelReceive
  }

  private mutating func nextAtEnd() -> Action {
    if pipe != nil { return .returnPipe }
    outcome = .ended
    return .halfClose
  }

  private mutating func nextWhenEmpty() -> Action {
    switch mode {
    case .copying:
      if pipe != nil { return .returnPipe }
      if receiving || starved { return .none }
      receiving = true
      return .receive
    case .turning:
      if receiving { return .none }
      mode = .splicing
      starved = false
      smallFills = 0
      sourceReady = true
      fillsLeft = Self.fillsATurn
      return .fill
    case .splicing:
      if sourceReady && fillsLeft > 0 { return .fill }
      if pipe != nil { return .returnPipe }
      if awaitsSource { return .none }
      awaitsSource = true
      return .pollSource
    }
  }

  /// Nothing more will move: what the kernel still has is called back, each once.
  private mutating func nextWhenOver() -> Action {
    if pipe != nil { return .returnPipe }
    if awaitsSource && !cancelledWaits.source {
      cancelledWaits.source = true
      return .cancelPollSource
    }
    if awaitsDestination && !cancelledWaits.destination {
      cancelledWaits.destination = true
      return .cancelPollDestination
    }
    return stopReceiving()
  }

  // MARK: Events of the copy path

  /// The receive brought bytes in a pool buffer, which the queue takes over.
  mutating func received(_ buffer: UInt16, length: Int, _ kernel: Kernel) {
    guard outcome == .open else { return kernel.release(buffer) }
    entered &+= UInt64(length)
    queue.append(buffer, length: length, in: kernel.buffers)
  }

  /// The receive ended: 0 at the end of the stream, else a negative errno.
  mutating func receiveEnded(_ result: Int32) {
    receiving = false
    cancelling = false
    switch result {
    case 0: sourceCameToItsEnd()
    case -ENOBUFS: starved = true
    case -ECANCELED, -EINTR, -EAGAIN: break
    default: sourceFailure = -result
    }
  }

  /// The other direction could not send to our source and got this errno.
  ///
  /// Linux reports the error of a socket once: the receive then reads "end of stream" behind whatever had come, and a
  /// stream that was cut would pass for whole. Only `EPIPE` says nothing: the end may have come before.
  mutating func sourceFailed(elsewhere code: Int32) {
    guard outcome == .open, code != EPIPE else { return }
    failureElsewhere = code
    if sourceEnded { sourceFailure = code }
  }

  private mutating func sourceCameToItsEnd() {
    sourceEnded = true
    if failureElsewhere != 0 { sourceFailure = failureElsewhere }
  }

  /// Receive buffers are free again.
  mutating func buffersFreed() { starved = false }

  /// A send completed: bytes that went, or a negative errno.
  mutating func sent(_ result: Int32, _ kernel: Kernel) {
    sending = false
    guard outcome == .open else { return discard(kernel) }
    guard result >= 0 || result == -EAGAIN || result == -EINTR else {
      return destinationBroke(result, kernel)
    }
    let count = Int(max(result, 0))
    precondition(count <= offered, "more left than was offered")
    moved &+= UInt64(count)
    if backlog.isEmpty {
      queue.consume(count, kernel)
      noteSize(of: count)
    } else {
      backlog.consume(count)
    }
    guard count < offered, result != -EINTR else { return }
    destinationFull = true
    if mode == .copying { mode = .turning }
  }

  private mutating func noteSize(of count: Int) {
    guard mode == .copying else { return }
    largeSends = count >= Self.largeSend ? largeSends + 1 : 0
    guard largeSends >= Self.largeSendsToSplice else { return }
    largeSends = 0
    mode = .turning
  }

  /// Moves the queue to the end of the backlog and frees its buffers.
  mutating func backUp(_ kernel: Kernel) {
    let length = queue.byteCount
    unsafe backlog.append(length) { unsafe queue.copy(to: $0, in: kernel.buffers) }
    queue.removeAll(kernel)
  }

  /// The destination takes bytes again, or is broken, which the next send finds out.
  mutating func destinationWritable() {
    awaitsDestination = false
    destinationFull = false
  }

  // MARK: Events of the splice path

  /// The source can be read, has ended or is broken, which the next fill finds out.
  mutating func sourceReadable() {
    awaitsSource = false
    sourceReady = true
    sourceReported = true
    fillsLeft = Self.fillsATurn
  }

  /// A pipe was borrowed for `fill`; nil sends the direction back to the copy path.
  mutating func lend(_ borrowed: Pipe?) {
    pipe = borrowed
    if borrowed == nil { mode = .copying }
  }

  /// The outcome of `fill`: bytes that entered the pipe, 0 at the end of the stream, or a negative errno.
  mutating func filled(_ result: Int) {
    switch result {
    case 1...: noteFill(result)
    case 0:
      sourceCameToItsEnd()
      sourceReady = false
    case -Int(EAGAIN):
      sourceReady = false
      // Readable, yet nothing to splice: splice stops at TCP's urgent byte for ever, a receive steps over it.
      if sourceReported { mode = .copying }
    case -Int(EINTR): break
    default: sourceFailure = Int32(clamping: -result)
    }
  }

  private mutating func noteFill(_ count: Int) {
    piped += count
    entered &+= UInt64(count)
    sourceReported = false
    fillsLeft -= 1
    // A load well below the pipe's capacity emptied the source: asking again would only be told so.
    if let pipe, count < Int(pipe.capacity) / 4 { sourceReady = false }
    smallFills = count < Self.smallFill ? smallFills + 1 : 0
    if smallFills >= Self.smallFillsToCopy {
      mode = .copying
      largeSends = 0
    }
  }

  /// The outcome of `drain`: bytes that left the pipe, or a negative errno.
  mutating func drained(_ result: Int, _ kernel: Kernel) {
    switch result {
    case 1...:
      precondition(result <= piped, "more left the pipe than entered it")
      piped -= result
      moved &+= UInt64(result)
    case -Int(EAGAIN): destinationFull = true
    case -Int(EINTR): break
    default: destinationBroke(result == 0 ? -EPIPE : Int32(clamping: result), kernel)
    }
  }

  /// Hands the pipe over to its pool; one that still holds bytes (`empty` is false) must never be reused.
  mutating func takePipe() -> (pipe: Pipe, empty: Bool)? {
    guard let taken = pipe else { return nil }
    pipe = nil
    defer { piped = 0 }
    return (taken, piped == 0)
  }

  // MARK: A change of destination

  /// What to do while there is no destination: received bytes leave the shared buffers, and a client that sends much is
  /// not listened to until there is one.
  mutating func hold() -> Action {
    if !queue.isEmpty { return .backUp }
    return backlog.count > Self.heldBytes ? stopReceiving() : .none
  }

  /// True when the destination can be exchanged: the kernel has nothing of this direction but the receive.
  var canRetarget: Bool {
    !sending && !awaitsSource && !awaitsDestination && pipe == nil && sourceFailure == 0 && outcome != .ended
  }

  /// Starts over towards a new destination, which gets `bytes` first: all that was ever received.
  mutating func retarget(_ bytes: [UInt8], _ kernel: Kernel) {
    precondition(canRetarget)
    outcome = .open
    discard(kernel)
    moved = 0
    entered = 0
    mode = .copying
    largeSends = 0
    destinationFull = false
    preload(bytes)
  }

  // MARK: The end

  /// Ends the direction where it stands; what waits is lost.
  mutating func stop(_ kernel: Kernel) {
    guard outcome == .open else { return }
    outcome = .destinationBroke(ECANCELED)
    discard(kernel)
  }

  private mutating func destinationBroke(_ result: Int32, _ kernel: Kernel) {
    outcome = .destinationBroke(-result)
    discard(kernel)
  }

  /// Frees what still waits, once no send looks at it any more; the pipe stays until it is taken.
  private mutating func discard(_ kernel: Kernel) {
    guard !sending else { return }
    queue.removeAll(kernel)
    backlog.consume(backlog.count)
  }
}
