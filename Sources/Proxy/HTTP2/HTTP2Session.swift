internal import Reactor

/// One HTTP/2 connection (RFC 9113) without input and output: bytes go in and come out, and events are pulled.
///
/// `receive` some bytes, then call `next` until it answers nil; between two calls everything else may be called. What
/// is to be sent gathers in `output`, so that many frames leave in one send. Nothing queues inside: a stream that
/// cannot take bytes refuses them and says `writable` later.
@safe struct HTTP2Session: ~Copyable {
  /// What the next byte of input belongs to.
  enum Stage: UInt8 {
    case preface, header, payload
    case padLength, data, skip
    case failed
  }

  /// What a piece of input came to.
  @safe enum Step {
    case event(HTTP2Event)
    /// Look at what follows.
    case again
    /// More bytes are needed.
    case starved
  }

  static let preface: StaticString = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
  static let mostStreamID: UInt32 = 0x7FFF_FFFF

  let role: HTTP2Role
  unowned(unsafe) let context: HTTP2Context
  /// To be sent and consumed by the owner, who then calls `outputDrained`.
  var output: ByteBuffer
  /// Bytes ever put into the output.
  var produced: UInt64 = 0
  var answers = AnswerBacklog()
  /// Bytes that the owner has taken out of the output and the socket has not taken yet.
  var unsent = 0
  /// Bytes at the end of the output that only acknowledge pings.
  var patientBytes = 0

  // Input.
  var input = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  /// The beginning of a frame that was cut.
  var partial: ByteBuffer
  var stage: Stage
  var frame = HTTP2FrameHeader()
  /// Bytes of the frame (of the preface) that are still to come, without the padding behind DATA.
  var left = 0
  var padding = 0
  /// When a frame came last.
  private(set) var lastReceived = Instant(nanoseconds: 0)
  /// The time of the call to `next` that runs.
  var clock = Instant(nanoseconds: 0)

  // A header block in several frames.
  var block: ByteBuffer
  /// Whose header block is incomplete; 0 is none.
  var blockStream: UInt32 = 0
  var blockEndsStream = false
  var continuations = 0
  var decoder = HeaderDecoder()
  var encoder = HeaderEncoder()
  /// Server: the peer wants a table smaller than usual, and has not been told yet that ours is empty.
  var owesTableSize = false
  var tableSizeTold = false

  // Streams.
  var streams: StreamTable
  /// Streams that wait for the connection, by number, first to last; 0 is none.
  var lineFirst: UInt32 = 0
  var lineLast: UInt32 = 0
  /// The output has refused bytes, and has not been drained to its half since.
  var outputIsFull = false
  /// The stream that was just told to be writable: it alone may overtake the line.
  var turn: UInt32 = 0
  /// Server: the last stream of the peer that was acted on, and the last that was seen.
  var lastPeerStream: UInt32 = 0
  var highestPeerStream: UInt32 = 0
  /// Client: the next stream.
  var nextStream: UInt32 = 1
  /// The streams we reset last: frames for them may have been under way.
  var resets = InlineArray<16, UInt32>(repeating: 0)
  var resetCount = 0

  // Windows of the connection, and what streams begin with.
  var sendWindow = Int(HTTP2Settings.standardWindow)
  var receiveWindow = Int(HTTP2Settings.standardWindow)
  var receiveSize = Int(HTTP2Settings.standardWindow)
  var creditDue = 0
  var peerStreamWindow = HTTP2Settings.standardWindow
  var streamWindow = HTTP2Settings.standardWindow

  // The connection as a whole.
  var peerSettingsSeen = false
  var settingsAcknowledged = false
  var peerMaxConcurrent = Limits.http2StreamsBeforeSettings
  /// Server: streams above it are ignored, once the final GOAWAY was sent.
  var lastAccepted = HTTP2Session.mostStreamID
  var goAwaySent = false
  var goAwayReceived = false
  var goAwayLast = HTTP2Session.mostStreamID
  var sweep: Sweep?
  var noise = TokenBucket()
  var rapidResets = TokenBucket()
  var lastPing: Instant?
  var pingStrikes = 0
  var strikesForgiven = false
  var failure: (code: HTTP2Code, reason: StaticString)?
  var failureTold = false

  /// A client's preface and settings are in the output at once. A server's settings follow the client's preface: until
  /// then it is not certain that the client speaks HTTP/2.
  init(_ role: HTTP2Role, _ context: HTTP2Context) {
    self.role = role
    unsafe self.context = context
    output = ByteBuffer(context.pool)
    partial = ByteBuffer(context.pool)
    block = ByteBuffer(context.pool)
    streams = StreamTable(context)
    switch role {
    case .server:
      stage = .preface
      left = Self.preface.utf8CodeUnitCount
    case .client:
      stage = .header
      output.append(Self.preface)
      produced = UInt64(output.count)
      sendSettings()
    }
  }

  // MARK: Looking at it

  /// Names the owners of all open streams. When the connection has failed it still does, until `next` is
  /// called once more behind the event that says so.
  func forEachUser(_ body: (Handle) -> Void) {
    for position in 0..<streams.capacity where streams[position].id != 0 {
      if let user = streams[position].user { body(user) }
    }
  }

  /// Streams that are open.
  var openStreams: Int { streams.count }
  /// Nothing more will be received or sent, but for what is in the output.
  var isFailed: Bool { stage == .failed }
  /// There is something to send.
  var owesOutput: Bool { !output.isEmpty }
  /// What there is to send only acknowledges pings, and can wait for company: gRPC libraries ping with every other message
  /// to measure bandwidth, and a send for each acknowledgement would cost as much as the message.
  var isPatient: Bool { output.count == patientBytes }
  /// Streams wait for the connection's window or the output: after `outputDrained` call `next`.
  var hasWaitingStreams: Bool { lineFirst != 0 }
  /// Both sides know each other's settings.
  var isSettled: Bool { peerSettingsSeen && settingsAcknowledged }

  // MARK: Input

  /// Gives the session bytes to look at; they must stay until `next` has answered nil.
  mutating func receive(_ bytes: UnsafeRawBufferPointer) {
    unsafe precondition(input.count == 0, "the bytes given before have not been used up")
    if stage != .failed { unsafe input = bytes }
  }

  /// The next event; nil when all bytes are used up and no stream has become writable.
  mutating func next(_ now: Instant) -> HTTP2Event? {
    clock = now
    turn = 0
    while true {
      if stage == .failed { return tellFailure() }
      if sweep != nil, let event = nextUnprocessed() { return event }
      switch step() {
      case .event(let event): return event
      case .again: continue
      case .starved: return nextWritable()
      }
    }
  }

  private mutating func tellFailure() -> HTTP2Event? {
    unsafe input = UnsafeRawBufferPointer(start: nil, count: 0)
    guard let failure, !failureTold else {
      if streams.count > 0 { streams.removeAll() }
      return nil
    }
    failureTold = true
    return .failed(failure.code, failure.reason)
  }

  private mutating func step() -> Step {
    switch stage {
    case .preface: return readPreface()
    case .header:
      guard let bytes = unsafe gather(HTTP2FrameHeader.size) else { return .starved }
      unsafe frame = HTTP2FrameHeader(bytes)
      partial.removeAll()
      lastReceived = clock
      return beginFrame()
    case .payload:
      guard let payload = unsafe gather(frame.length) else { return .starved }
      stage = .header
      let step = unsafe take(payload)
      partial.removeAll()
      return step
    case .padLength:
      guard let length = unsafe gather(1)?.first else { return .starved }
      partial.removeAll()
      return beginPadded(Int(length))
    case .data: return takeData()
    case .skip: return skip()
    case .failed: return .starved
    }
  }

  private mutating func readPreface() -> Step {
    let whole = unsafe UnsafeRawBufferPointer(Self.preface)
    let expected = unsafe whole.from(whole.count &- left)
    let size = unsafe min(left, input.count)
    guard unsafe input.first(size).elementsEqual(expected.first(size)) else {
      return fail(.protocolError, "no HTTP/2 preface")
    }
    unsafe input = input.from(size)
    left &-= size
    guard left == 0 else { return .starved }
    stage = .header
    sendSettings()
    return .again
  }

  /// The next `count` bytes in one piece, or nil while there are fewer; those that there are then kept.
  private mutating func gather(_ count: Int) -> UnsafeRawBufferPointer? {
    if partial.isEmpty, unsafe input.count >= count {
      let bytes = unsafe input.first(count)
      unsafe input = input.from(count)
      return unsafe bytes
    }
    let missing = unsafe min(count &- partial.count, input.count)
    unsafe partial.append(input.first(missing))
    unsafe input = input.from(missing)
    return unsafe partial.count == count ? partial.bytes : nil
  }

  private mutating func skip() -> Step {
    let size = unsafe min(left, input.count)
    unsafe input = input.from(size)
    left &-= size
    guard left == 0 else { return .starved }
    stage = .header
    return .again
  }

  // MARK: The end

  /// Ends the connection for an error of the peer (RFC 9113 section 5.4.1).
  mutating func fail(_ code: HTTP2Code, _ reason: StaticString) -> Step {
    guard stage != .failed else { return .again }
    writeGoAway(last: min(lastPeerStream, lastAccepted), code, reason)
    unsafe context.counters.connectionErrors &+= 1
    if code == .enhanceYourCalm { unsafe context.counters.floods &+= 1 }
    stage = .failed
    failure = (code, reason)
    partial.removeAll()
    block.removeAll()
    sweep = nil
    lineFirst = 0
    lineLast = 0
    return .again
  }

  /// Counts a frame that leads nowhere; false when there are too many, and the connection has then failed.
  mutating func admitNoise(_ cost: UInt64 = 1) -> Bool {
    if noise.admit(
      clock, cost: cost, burst: Limits.http2NoiseBurst, perSecond: Limits.http2NoisePerSecond)
    {
      return true
    }
    _ = fail(.enhanceYourCalm, "too many frames that lead nowhere")
    return false
  }

  /// Counts a stream of a client that was reset, by itself or for its errors; false as above.
  mutating func admitReset() -> Bool {
    if role == .client
      || rapidResets.admit(
        clock, burst: Limits.http2ResetBurst, perSecond: Limits.http2ResetsPerSecond)
    {
      return true
    }
    _ = fail(.enhanceYourCalm, "too many streams were reset")
    return false
  }

  /// Counts bytes that are about to answer the peer; false when it does not read them, and the connection has failed.
  mutating func admitAnswer(_ bytes: Int) -> Bool {
    let consumed = produced &- UInt64(output.count &+ unsent)
    if answers.add(bytes, produced: produced, consumed: consumed) { return true }
    _ = fail(.enhanceYourCalm, "answers are not read")
    return false
  }
}
