import Reactor

@testable import Proxy

/// A frame as a test writes or reads it.
struct TestFrame: Equatable, CustomStringConvertible {
  var type: UInt8
  var flags: UInt8 = 0
  var stream: UInt32 = 0
  var payload: [UInt8] = []

  var bytes: [UInt8] {
    let length = payload.count
    return [UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255), type, flags]
      + TestFrame.number(stream) + payload
  }

  var description: String {
    "frame \(type) flags \(flags) stream \(stream) \(payload.count > 40 ? "\(payload.count) bytes" : "\(payload)")"
  }

  /// Of RST_STREAM.
  var code: UInt32 { payload.count < 4 ? .max : TestFrame.read(payload, 0) }
  /// Of GOAWAY.
  var goAwayCode: UInt32 { payload.count < 8 ? .max : TestFrame.read(payload, 4) }

  static func number(_ value: UInt32) -> [UInt8] {
    [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
  }

  static func read(_ bytes: [UInt8], _ at: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 << 8 | UInt32(bytes[at + $1]) }
  }

  static func settings(_ pairs: [(UInt16, UInt32)] = []) -> TestFrame {
    TestFrame(type: 4, payload: pairs.flatMap { [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + number($0.1) })
  }
  static let settingsAck = TestFrame(type: 4, flags: 1)

  static func data(_ stream: UInt32, _ bytes: [UInt8], end: Bool = false) -> TestFrame {
    TestFrame(type: 0, flags: end ? 1 : 0, stream: stream, payload: bytes)
  }
  static func headers(_ stream: UInt32, _ fields: [(String, String)], end: Bool = false) -> TestFrame {
    TestFrame(type: 1, flags: end ? 5 : 4, stream: stream, payload: block(fields))
  }
  static func reset(_ stream: UInt32, _ code: UInt32) -> TestFrame {
    TestFrame(type: 3, stream: stream, payload: number(code))
  }
  static func window(_ stream: UInt32, _ increment: UInt32) -> TestFrame {
    TestFrame(type: 8, stream: stream, payload: number(increment))
  }
  static func ping(_ value: UInt8 = 7, ack: Bool = false) -> TestFrame {
    TestFrame(type: 6, flags: ack ? 1 : 0, payload: [0, 0, 0, 0, 0, 0, 0, value])
  }
  static func goAway(_ last: UInt32, _ code: UInt32 = 0) -> TestFrame {
    TestFrame(type: 7, payload: number(last) + number(code))
  }

  /// A header block of literals that leave the table alone.
  static func block(_ fields: [(String, String)]) -> [UInt8] {
    fields.flatMap { [0] + string($0.0) + string($0.1) }
  }

  private static func string(_ text: String) -> [UInt8] {
    let bytes = Array(text.utf8)
    guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
    var result: [UInt8] = [127]
    var rest = bytes.count - 127
    while rest >= 128 {
      result.append(UInt8(rest & 127) | 128)
      rest >>= 7
    }
    return result + [UInt8(rest)] + bytes
  }

  /// Cuts complete frames off; what is left of the last stays.
  static func take(from bytes: inout [UInt8]) -> [TestFrame] {
    var frames: [TestFrame] = []
    var place = 0
    while bytes.count - place >= 9 {
      let length = Int(bytes[place]) << 16 | Int(bytes[place + 1]) << 8 | Int(bytes[place + 2])
      guard bytes.count - place >= 9 + length else { break }
      frames.append(
        TestFrame(
          type: bytes[place + 3], flags: bytes[place + 4], stream: read(bytes, place + 5) & 0x7FFF_FFFF,
          payload: Array(bytes[place + 9..<place + 9 + length])))
      place += 9 + length
    }
    bytes.removeFirst(place)
    return frames
  }
}

let clientPreface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

let goodRequest: [(String, String)] = [
  (":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.KV/Range"), (":authority", "etcd:2379"),
  ("content-type", "application/grpc"), ("te", "trailers"),
]
let goodResponse: [(String, String)] = [(":status", "200"), ("content-type", "application/grpc")]

/// An event with everything copied.
enum SeenEvent: Equatable {
  case headers(UInt32, [String], end: Bool)
  case trailers(UInt32, [String])
  case data(UInt32, [UInt8], end: Bool)
  case reset(UInt32, HTTP2Code)
  case writable(UInt32)
  case settings
  case goAway(UInt32, HTTP2Code)
  case unprocessed(UInt32)
  case pong(UInt64)
  case failed(HTTP2Code, String)

  init(_ event: HTTP2Event, _ context: HTTP2Context) {
    switch event {
    case .headers(let stream, _, let end): self = .headers(stream, fieldTexts(context.received), end: end)
    case .trailers(let stream, _): self = .trailers(stream, fieldTexts(context.received))
    case .data(let stream, _, let bytes, let end): self = .data(stream, Array(bytes), end: end)
    case .reset(let stream, _, let code): self = .reset(stream, code)
    case .writable(let stream, _): self = .writable(stream)
    case .settings: self = .settings
    case .goAway(let last, let code): self = .goAway(last, code)
    case .unprocessed(let stream, _): self = .unprocessed(stream)
    case .pong(let value): self = .pong(value)
    case .failed(let code, let text): self = .failed(code, "\(text)")
    }
  }
}

func headerText(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }

func fieldTexts(_ list: HeaderList) -> [String] {
  (0..<list.count).map { "\(headerText(list[$0].name)): \(headerText(list[$0].value))" }
}

func headerList(_ fields: [(String, String)]) -> HeaderList {
  let list = HeaderList()
  for (name, value) in fields {
    Array(name.utf8).withUnsafeBytes { name in
      Array(value.utf8).withUnsafeBytes { value in list.append(name, value, neverIndexed: false) }
    }
  }
  return list
}

/// A session with a test for its peer and owner.
final class HTTP2TestConnection {
  // In this order, in which they end: the session gives memory back to the pool.
  var session: HTTP2Session
  let context: HTTP2Context
  let pool: BlockPool
  var now = Instant(nanoseconds: 1_000_000_000)
  private var unread: [UInt8] = []

  // `#expect` cannot look into a value that cannot be copied.
  var isFailed: Bool { session.isFailed }
  var canOpen: Bool { session.canOpen }
  var hasWaitingStreams: Bool { session.hasWaitingStreams }
  var openStreams: Int { session.openStreams }

  static func settings() -> HTTP2Settings {
    HTTP2Settings(
      maxConcurrentStreams: 100, streamWindow: 65_535, maxStreamWindow: 65_535, connectionWindow: 1 << 20,
      maxHeaderListBytes: 16_384, pingMinimum: .seconds(5), pingsWithoutStream: false)
  }

  init(
    _ role: HTTP2Role, _ settings: HTTP2Settings = HTTP2TestConnection.settings(),
    pool: BlockPool = BlockPool()
  ) {
    self.pool = pool
    context = HTTP2Context(settings: settings, pool: pool, hashSeed: 0x9E37_79B9)
    session = HTTP2Session(role, context)
  }

  /// A session whose peer has sent its first frames, and whose own first frames are forgotten.
  static func open(
    _ role: HTTP2Role, _ settings: HTTP2Settings = HTTP2TestConnection.settings(),
    peer: [(UInt16, UInt32)] = []
  ) -> HTTP2TestConnection {
    let connection = HTTP2TestConnection(role, settings)
    if role == .server { _ = connection.feed(clientPreface) }
    _ = connection.feed([.settings(peer), .settingsAck])
    _ = connection.sent()
    return connection
  }

  @discardableResult func feed(_ frames: [TestFrame]) -> [SeenEvent] { feed(frames.flatMap(\.bytes)) }

  @discardableResult func feed(_ bytes: [UInt8]) -> [SeenEvent] {
    bytes.withUnsafeBytes { bytes in
      session.receive(bytes)
      return events()
    }
  }

  func events() -> [SeenEvent] {
    var seen: [SeenEvent] = []
    while let event = session.next(now) { seen.append(SeenEvent(event, context)) }
    return seen
  }

  /// The output's frames, consumed.
  func sent() -> [TestFrame] {
    unread += sentBytes()
    if unread.starts(with: clientPreface) { unread.removeFirst(clientPreface.count) }
    return TestFrame.take(from: &unread)
  }

  func sentBytes() -> [UInt8] {
    let bytes = Array(session.output.bytes)
    session.output.consume(bytes.count)
    session.outputDrained()
    return bytes
  }

  func send(_ stream: UInt32, _ bytes: [UInt8], end: Bool = false) -> Int {
    bytes.withUnsafeBytes { session.send(stream, $0, endStream: end) }
  }
}

extension HeaderList {
  static func of(_ fields: [(String, String)]) -> HeaderList { headerList(fields) }
}

let someHandle = Handle(slot: 7, generation: 9)
