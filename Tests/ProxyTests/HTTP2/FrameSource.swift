import CNGHTTP2
import Simulation

@testable import Proxy

/// Frames such as a client sends, with some that none should.
struct FrameSource {
  var highest: UInt32 = 0
  var opened: Set<UInt32> = []
  /// Streams that somebody reset.
  var over: Set<UInt32> = []
  var ended: Set<UInt32> = []
  /// The last header block came with a priority.
  var hasPriority = false
  private(set) var recent: [String] = []
  private var started = false
  private var acknowledged = false
  /// The rest of a header block, and whose it is.
  private var rest: [UInt8] = []
  private var restStream: UInt32 = 0

  mutating func next(_ random: inout SimRandom) -> TestFrame {
    var frame = plain(&random)
    if random.chance(25) { mutate(&frame, &random) }
    if frame.type == FrameType.headers { hasPriority = frame.flags & FrameFlag.priority != 0 }
    return frame
  }

  var hasOddScheme: Bool { recent.contains { $0.hasPrefix(":scheme") && $0 != ":scheme: http" } }

  /// Reset, or passed over when a higher one was opened.
  func isOver(_ stream: UInt32) -> Bool {
    over.contains(stream) || (stream < highest && !opened.contains(stream))
  }

  /// Keeps up with what became of the streams.
  mutating func note(_ frame: TestFrame, _ verdict: HTTP2DifferentialTests.Verdict) {
    if frame.type == FrameType.headers, frame.stream > highest {
      highest = frame.stream
      opened.insert(frame.stream)
    }
    if frame.type == FrameType.resetStream { over.insert(frame.stream) }
    if frame.type <= 1, frame.flags & 1 != 0 { ended.insert(frame.stream) }
    if case .streams(let reset) = verdict { over.formUnion(reset) }
  }

  private mutating func plain(_ random: inout SimRandom) -> TestFrame {
    if !started {
      started = true
      return .settings(random.chance(500) ? [] : [(UInt16(4), UInt32(random.size(upTo: 100_000)))])
    }
    if !acknowledged {
      acknowledged = true
      return .settingsAck
    }
    if restStream != 0 { return continuation(&random) }
    let known = UInt32(1 + 2 * random.below(Int(highest) / 2 + 1))
    switch random.below(22) {
    case 0...7: return headers(highest + (highest & 1 == 1 ? 2 : 1), request(&random), &random)
    case 8: return headers(known, trailers(&random), &random)
    case 9...12: return data(known, &random)
    case 13: return .reset(known, UInt32(random.below(16)))
    case 14: return .window(random.chance(300) ? 0 : known, increment(&random))
    case 15: return .settings((0..<random.below(4)).map { _ in setting(&random) })
    case 16: return .ping(1, ack: random.chance(200))
    case 17: return TestFrame(type: 2, stream: known, payload: TestFrame.number(known &+ 2) + [5])
    case 18:
      return TestFrame(type: UInt8(20 + random.below(200)), flags: UInt8(random.below(256)), stream: known)
    case 19: return random.chance(100) ? .goAway(0, UInt32(random.below(14))) : .ping()
    case 20: return random.chance(50) ? oddity(&random) : .window(0, 1000)
    default: return .ping(2)
    }
  }

  private func increment(_ random: inout SimRandom) -> UInt32 {
    random.chance(40) ? 0 : random.chance(40) ? 0x7FFF_FFFF : UInt32(random.size(upTo: 50_000))
  }

  private func setting(_ random: inout SimRandom) -> (UInt16, UInt32) {
    switch random.below(12) {
    case 0: (1, UInt32(random.below(10_000)))
    case 1: (2, UInt32(random.below(random.chance(100) ? 3 : 2)))
    case 2: (3, UInt32(random.below(100)))
    case 3...6: (4, random.chance(30) ? .max : UInt32(random.size(upTo: 200_000)))
    case 7: (5, random.chance(100) ? UInt32(random.below(1 << 25)) : 16_384 + UInt32(random.below(10_000)))
    case 8: (6, UInt32(random.below(100_000)))
    default: (UInt16(100 + random.below(1000)), 7)
    }
  }

  private func data(_ stream: UInt32, _ random: inout SimRandom) -> TestFrame {
    let bytes = [UInt8](repeating: 7, count: random.chance(50) ? 16_384 : random.below(3000))
    var frame = TestFrame.data(stream, bytes, end: random.chance(200))
    if random.chance(150), bytes.count < 16_000 {
      let padding = random.below(200)
      frame.flags |= FrameFlag.padded
      frame.payload = [UInt8(padding)] + bytes + [UInt8](repeating: 0, count: padding)
    }
    return frame
  }

  private mutating func headers(
    _ stream: UInt32, _ fields: [(String, String)], _ random: inout SimRandom
  ) -> TestFrame {
    recent = fields.map { "\($0): \($1)" }
    var block = TestFrame.block(fields)
    if random.chance(100) { block = [0x82, 0x86] + block }
    if random.chance(10) { block[random.below(block.count)] ^= UInt8(1 << random.below(8)) }
    var flags: UInt8 = random.chance(300) ? FrameFlag.endStream : 0
    var before: [UInt8] = []
    var after: [UInt8] = []
    if random.chance(100) {
      flags |= FrameFlag.padded
      let padding = random.below(100)
      before = [UInt8(padding)]
      after = .init(repeating: 0, count: padding)
    }
    if random.chance(100) {
      flags |= FrameFlag.priority
      before += TestFrame.number(random.chance(50) ? stream : 0) + [9]
    }
    if random.chance(120) {
      let place = random.below(block.count)
      rest = Array(block[place...])
      restStream = stream
      block.removeSubrange(place...)
    } else {
      flags |= FrameFlag.endHeaders
    }
    return TestFrame(type: FrameType.headers, flags: flags, stream: stream, payload: before + block + after)
  }

  private mutating func continuation(_ random: inout SimRandom) -> TestFrame {
    let size = random.chance(500) ? rest.count : random.below(rest.count + 1)
    let piece = Array(rest.prefix(size))
    rest.removeFirst(size)
    let stream = restStream
    if rest.isEmpty { restStream = 0 }
    return TestFrame(
      type: FrameType.continuation, flags: rest.isEmpty ? FrameFlag.endHeaders : 0, stream: stream,
      payload: piece)
  }

  private func request(_ random: inout SimRandom) -> [(String, String)] {
    var fields = goodRequest
    guard random.chance(200) else { return fields }
    switch random.below(8) {
    case 0: fields.remove(at: random.below(fields.count))
    case 1: fields.swapAt(random.below(fields.count), random.below(fields.count))
    case 2: fields.append(fields[random.below(fields.count)])
    case 3: fields.insert(oddField(&random), at: random.below(fields.count))
    case 4:
      fields[random.below(4)].1 = random.pick(["", "*", "x", "/ y", "CONNECT", "OPTIONS", "\u{1}", "a\t"])
    case 5: fields.append(("content-length", "\(random.below(3000))"))
    default: fields.append(oddField(&random))
    }
    return fields
  }

  private func trailers(_ random: inout SimRandom) -> [(String, String)] {
    random.chance(800) ? [("grpc-status", "0")] : [("a", "b"), oddField(&random)]
  }

  private func oddField(_ random: inout SimRandom) -> (String, String) {
    random.pick([
      ("connection", "close"), ("te", "gzip"), ("te", "trailers"), ("Upper", "x"), ("x y", "z"),
      ("x", "a\nb"),
      ("x", "a\u{0}"), ("x", " a"), ("x", "a "), ("content-length", "-1"), ("content-length", "7"),
      ("content-length", "x"), ("host", "h"), ("upgrade", "h2c"), (":protocol", "websocket"),
      (":status", "200"),
      ("x", "é"), ("keep-alive", "5"), ("transfer-encoding", "chunked"), ("proxy-connection", "x"), ("x", ""),
      (":path", "/"), ("cookie", "a=b"), ("grpc-timeout", "5S"), ("x", "\u{7F}"),
    ])
  }

  private func oddity(_ random: inout SimRandom) -> TestFrame {
    let stream = UInt32(random.below(20))
    return TestFrame(
      type: UInt8(random.below(12)), flags: UInt8(random.below(256)), stream: stream,
      payload: (0..<random.below(40)).map { _ in UInt8(random.below(256)) })
  }

  private mutating func mutate(_ frame: inout TestFrame, _ random: inout SimRandom) {
    switch random.below(5) {
    case 0: frame.type = UInt8(random.below(10))
    case 1: frame.flags ^= UInt8(1 << random.below(8))
    case 2: frame.stream = UInt32(random.below(Int(highest) + 8))
    case 3: frame.payload.removeLast(min(frame.payload.count, 1 + random.below(8)))
    default:
      if frame.payload.count < 10_000 { frame.payload += [UInt8(random.below(256))] }
    }
  }
}

/// nghttp2's server session, of which only the answers matter.
final class NGHTTP2Server {
  private var session: OpaquePointer?
  private var unread: [UInt8] = []

  init() {
    var callbacks: OpaquePointer?
    nghttp2_session_callbacks_new(&callbacks)
    // By default nghttp2 drops a bad field and goes on; RFC 9113 section 8.1.1 calls the message malformed.
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks) { _, _, _, _, _, _, _, _ in
      NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
    }
    var option: OpaquePointer?
    nghttp2_option_new(&option)
    nghttp2_option_set_max_continuations(option, Limits.http2Continuations)
    nghttp2_session_server_new2(&session, callbacks, nil, option)
    nghttp2_option_del(option)
    nghttp2_session_callbacks_del(callbacks)
    var entry = nghttp2_settings_entry(
      settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue), value: 100)
    nghttp2_submit_settings(session, 0, &entry, 1)
    _ = sent()
  }

  deinit { nghttp2_session_del(session) }

  func judge(_ bytes: [UInt8]) -> [TestFrame] {
    let used = nghttp2_session_mem_recv(session, bytes, bytes.count)
    let frames = sent()
    return used >= 0 ? frames : frames + [.goAway(0, UInt32(bitPattern: Int32(used)))]
  }

  private func sent() -> [TestFrame] {
    var bytes: UnsafePointer<UInt8>?
    while true {
      let count = nghttp2_session_mem_send(session, &bytes)
      guard count > 0 else { break }
      unread += UnsafeBufferPointer(start: bytes, count: count)
    }
    return TestFrame.take(from: &unread)
  }
}
