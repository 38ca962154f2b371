import Reactor
import Testing

@testable import Proxy

/// Every rule of RFC 9113 that a peer can break, and what happens then.
@Suite struct HTTP2RuleTests {
  enum Outcome: Equatable {
    case fine
    case stream(HTTP2Code)
    case connection(HTTP2Code)
  }

  struct Case: CustomTestStringConvertible {
    let name: String
    var role = HTTP2Role.server
    let frames: [TestFrame]
    let outcome: Outcome

    init(_ name: String, _ frames: [TestFrame], _ outcome: Outcome) {
      self.init(name, .server, frames, outcome)
    }

    init(_ name: String, _ role: HTTP2Role, _ frames: [TestFrame], _ outcome: Outcome) {
      self.name = name
      self.role = role
      self.frames = frames
      self.outcome = outcome
    }
    var testDescription: String { name }
  }

  /// What the session said to the peer about `frames`.
  static func outcome(_ connection: HTTP2TestConnection, _ frames: [TestFrame]) -> Outcome {
    connection.feed(frames)
    var result = Outcome.fine
    for frame in connection.sent() {
      if frame.type == 7 { return .connection(HTTP2Code(received: frame.goAwayCode)) }
      if frame.type == 3 { result = .stream(HTTP2Code(received: frame.code)) }
    }
    return result
  }

  @Test(arguments: frameCases + streamCases + settingsCases) func frameRules(_ test: Case) {
    let connection = HTTP2TestConnection.open(test.role)
    if test.role == .client {
      #expect(connection.session.open(headerList(goodRequest), endStream: false, user: someHandle) == 1)
      _ = connection.sent()
    }
    #expect(Self.outcome(connection, test.frames) == test.outcome)
    let isFailed = if case .connection = test.outcome { true } else { false }
    #expect(connection.isFailed == isFailed)
    // Whatever happened, the machine stands: it takes more bytes and says nothing twice.
    let more = connection.feed([.ping(), .settings()])
    #expect(!isFailed || more.isEmpty)
  }

  static let open = TestFrame.headers(1, goodRequest)
  static let openEnded = TestFrame.headers(1, goodRequest, end: true)

  static let frameCases: [Case] = [
    Case("a request", [open], .fine),
    Case(
      "a frame too long", [TestFrame(type: 0, stream: 1, payload: .init(repeating: 0, count: 16_385))],
      .connection(.frameSizeError)),
    Case(
      "an unknown frame too long", [TestFrame(type: 99, payload: .init(repeating: 0, count: 16_385))],
      .connection(.frameSizeError)),
    Case("an unknown frame", [TestFrame(type: 99, flags: 255, stream: 5, payload: [1, 2, 3])], .fine),
    Case("DATA on stream 0", [.data(0, [1])], .connection(.protocolError)),
    Case("DATA on an idle stream", [.data(1, [1])], .connection(.protocolError)),
    Case("DATA on an even stream", [open, .data(2, [1])], .connection(.protocolError)),
    Case("padded DATA", [open, TestFrame(type: 0, flags: 8, stream: 1, payload: [3, 9, 0, 0, 0])], .fine),
    Case(
      "padding as long as the frame", [open, TestFrame(type: 0, flags: 8, stream: 1, payload: [3, 0, 0])],
      .connection(.protocolError)),
    Case(
      "padding of an empty frame", [open, TestFrame(type: 0, flags: 8, stream: 1)],
      .connection(.frameSizeError)),
    Case("only padding", [open, TestFrame(type: 0, flags: 9, stream: 1, payload: [2, 0, 0])], .fine),
    Case("HEADERS on stream 0", [.headers(0, goodRequest)], .connection(.protocolError)),
    Case("HEADERS on an even stream", [.headers(2, goodRequest)], .connection(.protocolError)),
    Case(
      "HEADERS padded too much", [TestFrame(type: 1, flags: 0xC, stream: 1, payload: [9, 0x82])],
      .connection(.protocolError)),
    Case(
      "HEADERS without room for the padding's length", [TestFrame(type: 1, flags: 0xC, stream: 1)],
      .connection(.frameSizeError)),
    Case(
      "HEADERS without room for priority", [TestFrame(type: 1, flags: 0x24, stream: 1, payload: [0, 0])],
      .connection(.frameSizeError)),
    Case(
      "HEADERS with padding and priority",
      [
        TestFrame(
          type: 1, flags: 0x2C, stream: 1,
          payload: [2, 0, 0, 0, 1, 9] + TestFrame.block(goodRequest) + [0, 0])
      ],
      .fine),
    Case("an empty header block", [TestFrame(type: 1, flags: 4, stream: 1)], .stream(.protocolError)),
    Case("PRIORITY", [TestFrame(type: 2, stream: 7, payload: [0, 0, 0, 7, 1])], .fine),
    Case(
      "PRIORITY on stream 0", [TestFrame(type: 2, payload: [0, 0, 0, 7, 1])], .connection(.protocolError)),
    Case(
      "PRIORITY too short", [open, TestFrame(type: 2, stream: 1, payload: [0])], .stream(.frameSizeError)),
    Case(
      "PRIORITY too short on an idle stream", [TestFrame(type: 2, stream: 1, payload: [0])],
      .connection(.frameSizeError)),
    Case("RST_STREAM", [open, .reset(1, 8)], .fine),
    Case("RST_STREAM on stream 0", [.reset(0, 8)], .connection(.protocolError)),
    Case("RST_STREAM on an idle stream", [.reset(1, 8)], .connection(.protocolError)),
    Case("RST_STREAM twice", [open, .reset(1, 8), .reset(1, 8)], .fine),
    Case(
      "RST_STREAM of a wrong size", [open, TestFrame(type: 3, stream: 1, payload: [0])],
      .connection(.frameSizeError)),
    Case(
      "PUSH_PROMISE from a client", [open, TestFrame(type: 5, flags: 4, stream: 1, payload: [0, 0, 0, 2])],
      .connection(.protocolError)),
    Case(
      "PUSH_PROMISE from a server", .client,
      [TestFrame(type: 5, flags: 4, stream: 1, payload: [0, 0, 0, 2])],
      .connection(.protocolError)),
    Case(
      "PING on a stream", [TestFrame(type: 6, stream: 1, payload: .init(repeating: 0, count: 8))],
      .connection(.protocolError)),
    Case(
      "PING of a wrong size", [TestFrame(type: 6, payload: .init(repeating: 0, count: 7))],
      .connection(.frameSizeError)),
    Case("GOAWAY", [.goAway(0)], .fine),
    Case(
      "GOAWAY on a stream", [TestFrame(type: 7, stream: 1, payload: .init(repeating: 0, count: 8))],
      .connection(.protocolError)),
    Case(
      "GOAWAY too short", [TestFrame(type: 7, payload: .init(repeating: 0, count: 7))],
      .connection(.frameSizeError)),
    Case("GOAWAY that takes back another", .client, [.goAway(1), .goAway(3)], .connection(.protocolError)),
    Case("WINDOW_UPDATE of zero", [.window(0, 0)], .connection(.protocolError)),
    Case("WINDOW_UPDATE of zero on a stream", [open, .window(1, 0)], .stream(.protocolError)),
    Case("WINDOW_UPDATE on an idle stream", [.window(1, 5)], .connection(.protocolError)),
    Case("WINDOW_UPDATE of a wrong size", [TestFrame(type: 8, payload: [1])], .connection(.frameSizeError)),
    Case("the connection's window overflows", [.window(0, 0x7FFF_FFFF)], .connection(.flowControlError)),
    Case("a stream's window overflows", [open, .window(1, 0x7FFF_FFFF)], .stream(.flowControlError)),
    Case("the reserved bit is ignored", [.window(0, 0x8000_0001)], .fine),
    Case(
      "CONTINUATION without a block", [TestFrame(type: 9, flags: 4, stream: 1)], .connection(.protocolError)),
    Case(
      "CONTINUATION behind a complete block", [open, TestFrame(type: 9, flags: 4, stream: 1)],
      .connection(.protocolError)),
    Case(
      "CONTINUATION of another stream",
      [TestFrame(type: 1, stream: 1, payload: [0x82]), TestFrame(type: 9, flags: 4, stream: 3)],
      .connection(.protocolError)),
    Case(
      "a block that is interrupted", [TestFrame(type: 1, stream: 1, payload: [0x82]), .ping()],
      .connection(.protocolError)),
    Case(
      "a block that is interrupted by an unknown frame",
      [TestFrame(type: 1, stream: 1, payload: [0x82]), TestFrame(type: 77)], .connection(.protocolError)),
    Case(
      "too many CONTINUATION frames",
      [TestFrame(type: 1, stream: 1)] + .init(repeating: TestFrame(type: 9, stream: 1), count: 33),
      .connection(.enhanceYourCalm)),
    Case(
      "a header block without end",
      [TestFrame(type: 1, stream: 1)]
        + .init(
          repeating: TestFrame(type: 9, stream: 1, payload: .init(repeating: 0, count: 16_384)), count: 5),
      .connection(.enhanceYourCalm)),
    Case(
      "a broken header block",
      [TestFrame(type: 1, flags: 4, stream: 1, payload: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])],
      .connection(.compressionError)),
    Case(
      "a truncated header block", [TestFrame(type: 1, flags: 4, stream: 1, payload: [0x00, 5, 65])],
      .connection(.compressionError)),
    Case(
      "a broken block on a closed stream", .client,
      [.reset(1, 8), TestFrame(type: 1, flags: 4, stream: 1, payload: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF])],
      .connection(.compressionError)),
  ]

  static let streamCases: [Case] = [
    Case(
      "stream numbers fall", [.headers(5, goodRequest), .headers(3, goodRequest)], .connection(.streamClosed)),
    Case("DATA behind the end", [openEnded, .data(1, [1])], .stream(.streamClosed)),
    Case(
      "HEADERS behind the end", [openEnded, .headers(1, [("a", "b")], end: true)], .stream(.streamClosed)),
    Case("DATA behind a reset", [open, .reset(1, 8), .data(1, [1])], .stream(.streamClosed)),
    Case(
      "HEADERS behind a reset", [open, .reset(1, 8), .headers(1, [("a", "b")], end: true)],
      .connection(.streamClosed)),
    Case("WINDOW_UPDATE behind a reset", [open, .reset(1, 8), .window(1, 5)], .fine),
    Case("trailers", [open, .data(1, [1]), .headers(1, [("a", "b")], end: true)], .fine),
    Case("trailers without an end", [open, .headers(1, [("a", "b")])], .stream(.protocolError)),
    Case(
      "a pseudo header in trailers", [open, .headers(1, [(":path", "/")], end: true)], .stream(.protocolError)
    ),
    Case(
      "DATA beyond the stream's window",
      [open] + .init(repeating: .data(1, .init(repeating: 0, count: 16_384)), count: 4),
      .stream(.flowControlError)),
    Case(
      "DATA beyond the connection's window",
      [open] + .init(repeating: .data(1, .init(repeating: 0, count: 16_384)), count: 200),
      .stream(.flowControlError)),
    Case(
      "HEADERS of a server's own stream", .client, [.headers(2, goodResponse)], .connection(.protocolError)),
    Case(
      "HEADERS on an idle stream of a client", .client, [.headers(3, goodResponse)],
      .connection(.protocolError)),
    Case("DATA on an idle stream of a client", .client, [.data(3, [])], .connection(.protocolError)),
    Case(
      "a response", .client,
      [.headers(1, goodResponse), .data(1, [1]), .headers(1, [("grpc-status", "0")], end: true)], .fine),
    Case(
      "a goodResponse of trailers only", .client,
      [.headers(1, goodResponse + [("grpc-status", "0")], end: true)],
      .fine),
    Case("DATA before the response", .client, [.data(1, [1])], .stream(.protocolError)),
    Case(
      "an interim response", .client, [.headers(1, [(":status", "103")]), .headers(1, goodResponse)], .fine),
    Case(
      "an interim goodResponse that ends", .client, [.headers(1, [(":status", "100")], end: true)],
      .stream(.protocolError)),
    Case("switching protocols", .client, [.headers(1, [(":status", "101")])], .stream(.protocolError)),
    Case(
      "DATA behind the end of a response", .client, [.headers(1, goodResponse, end: true), .data(1, [1])],
      .stream(.streamClosed)),
    Case(
      "frames behind a reset of the server", .client,
      [.reset(1, 8), .data(1, [1]), .headers(1, [("a", "b")], end: true)], .fine),
  ]

  static let settingsCases: [Case] = [
    Case("unknown settings", [.settings([(99, 5), (0, 0)])], .fine),
    Case("SETTINGS on a stream", [TestFrame(type: 4, stream: 1)], .connection(.protocolError)),
    Case("SETTINGS of a wrong size", [TestFrame(type: 4, payload: [0])], .connection(.frameSizeError)),
    Case(
      "an acknowledgement with a payload",
      [TestFrame(type: 4, flags: 1, payload: .init(repeating: 0, count: 6))],
      .connection(.frameSizeError)),
    Case("an acknowledgement of nothing", [.settingsAck], .connection(.protocolError)),
    Case("ENABLE_PUSH of 2", [.settings([(2, 2)])], .connection(.protocolError)),
    Case("ENABLE_PUSH from a server", .client, [.settings([(2, 1)])], .connection(.protocolError)),
    Case("ENABLE_PUSH off", .client, [.settings([(2, 0)])], .fine),
    Case("a window too large", [.settings([(4, 0x8000_0000)])], .connection(.flowControlError)),
    Case(
      "a window that overflows a stream's", [open, .window(1, 0x7FFF_0000), .settings([(4, 0x7FFF_FFFF)])],
      .connection(.flowControlError)),
    Case("frames too small", [.settings([(5, 16_383)])], .connection(.protocolError)),
    Case("frames too large", [.settings([(5, 1 << 24)])], .connection(.protocolError)),
    Case("the largest frames", [.settings([(5, 1 << 24 - 1)])], .fine),
  ]

  // MARK: Fields

  struct Fields: CustomTestStringConvertible {
    let name: String
    let change: @Sendable ([(String, String)]) -> [(String, String)]
    var isFine = false
    init(
      _ name: String, isFine: Bool = false,
      _ change: @escaping @Sendable ([(String, String)]) -> [(String, String)]
    ) {
      self.name = name
      self.change = change
      self.isFine = isFine
    }
    var testDescription: String { name }
  }

  static func without(_ name: String) -> Fields { Fields("without \(name)") { $0.filter { $0.0 != name } } }
  static func with(_ name: String, _ value: String, isFine: Bool = false) -> Fields {
    Fields("with \(name) \(value)", isFine: isFine) { $0 + [(name, value)] }
  }
  static func replaced(_ name: String, _ value: String, isFine: Bool = false) -> Fields {
    Fields("\(name) replaced by \(value)", isFine: isFine) { $0.map { $0.0 == name ? (name, value) : $0 } }
  }

  static let requests: [Fields] = [
    Fields("a plain one", isFine: true) { $0 },
    without(":method"), without(":scheme"), without(":path"),
    Fields("without :authority", isFine: true) { $0.filter { $0.0 != ":authority" } },
    Fields("a method twice") { [(":method", "POST")] + $0 },
    Fields("a pseudo header behind others") { Array($0.dropFirst()) + [$0[0]] },
    Fields("an unknown pseudo header") { [(":protocol", "x")] + $0 },
    Fields("a status") { [(":status", "200")] + $0 },
    replaced(":path", ""), replaced(":path", "x"), replaced(":path", "/ x"), replaced(":path", "*"),
    replaced(":method", ""), replaced(":method", "PO ST"), replaced(":scheme", ""), replaced(":scheme", "*"),
    replaced(":scheme", "1a"), replaced(":scheme", "a1+-.", isFine: true),
    replaced(":authority", "#initially=[http://127.0.0.1:2379]", isFine: true), replaced(":authority", "a b"),
    replaced(":authority", "é"),
    Fields("OPTIONS *", isFine: true) { _ in [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")] },
    Fields("CONNECT", isFine: true) { _ in [(":method", "CONNECT"), (":authority", "a:1")] },
    Fields("CONNECT with a path") { _ in [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")] },
    with("Upper", "x"), with("", "x"), with("a b", "x"), with("a\u{7F}", "x"), with("a:b", "x"),
    with("é", "x"),
    with("x", "a\u{0}b"), with("x", "a\rb"), with("x", "a\nb"), with("x", "a\u{7F}"), with("x", " a"),
    with("x", "a "), with("x", "\ta"),
    with("x", "a\tb", isFine: true), with("x", "", isFine: true), with("x", "é", isFine: true),
    with("!#$%&'*+-.^_`|~09az", "x", isFine: true),
    with("connection", "close"), with("keep-alive", "1"), with("proxy-connection", "x"),
    with("transfer-encoding", "chunked"), with("upgrade", "h2c"),
    replaced("te", "gzip"), replaced("te", "trailers, gzip"), replaced("te", "Trailers", isFine: true),
    with("content-length", "5", isFine: true), with("content-length", "+5"), with("content-length", ""),
    with("content-length", "5x"), with("content-length", "99999999999999999999"),
    Fields("a length twice") { $0 + [("content-length", "5"), ("content-length", "5")] },
    Fields("a host twice") { $0 + [("host", "a"), ("host", "a")] },
    with("host", "a", isFine: true),
  ]

  @Test(arguments: requests) func requestFields(_ test: Fields) {
    let connection = HTTP2TestConnection.open(.server)
    let seen = connection.feed([.headers(1, test.change(goodRequest))])
    if test.isFine {
      #expect(seen == [.headers(1, test.change(goodRequest).map { "\($0.0): \($0.1)" }, end: false)])
      #expect(connection.sent().isEmpty)
    } else {
      #expect(seen.isEmpty)
      #expect(connection.sent() == [.reset(1, 1)])
      #expect(connection.openStreams == 0)
    }
    // The next request is none the worse for it.
    #expect(connection.feed([.headers(3, goodRequest)]).count == 1)
  }

  static let responses: [Fields] = [
    Fields("a plain one", isFine: true) { $0 },
    without(":status"), replaced(":status", "20"), replaced(":status", "2000"), replaced(":status", "2x0"),
    replaced(":status", "099"), replaced(":status", "404", isFine: true),
    Fields("a status twice") { [$0[0]] + $0 },
    Fields("a path") { [(":path", "/")] + $0 },
    with("Upper", "x"), with("connection", "close"), with("x", "a\u{0}"),
  ]

  @Test(arguments: responses) func responseFields(_ test: Fields) {
    let connection = HTTP2TestConnection.open(.client)
    #expect(connection.session.open(headerList(goodRequest), endStream: true, user: someHandle) == 1)
    _ = connection.sent()
    let seen = connection.feed([.headers(1, test.change(goodResponse))])
    if test.isFine {
      #expect(seen == [.headers(1, test.change(goodResponse).map { "\($0.0): \($0.1)" }, end: false)])
      #expect(connection.sent().isEmpty)
    } else {
      #expect(seen == [.reset(1, .protocolError)])
      #expect(connection.sent() == [.reset(1, 1)])
    }
  }

  @Test(arguments: [
    (5, [5], true), (5, [2, 3], true), (5, [4], false), (5, [6], false), (5, [5, 0], true), (0, [], true),
    (5, [], false), (0, [1], false), (5, [2, 4], false),
  ]) func contentLength(_ length: Int, _ pieces: [Int], _ isFine: Bool) {
    for role in [HTTP2Role.server, .client] {
      for endsWithTrailers in [false, true] {
        let connection = HTTP2TestConnection.open(role)
        let head = role == .server ? goodRequest : goodResponse
        if role == .client {
          _ = connection.session.open(headerList(goodRequest), endStream: true, user: someHandle)
        }
        _ = connection.sent()
        let endsAtOnce = pieces.isEmpty && !endsWithTrailers
        var frames: [TestFrame] = [.headers(1, head + [("content-length", "\(length)")], end: endsAtOnce)]
        for (place, size) in pieces.enumerated() {
          let ends = !endsWithTrailers && place == pieces.count - 1
          frames.append(.data(1, .init(repeating: 0, count: size), end: ends))
        }
        if endsWithTrailers { frames.append(.headers(1, [("a", "b")], end: true)) }
        let expected = isFine ? Outcome.fine : .stream(.protocolError)
        #expect(Self.outcome(connection, frames) == expected, "\(role) \(endsWithTrailers)")
      }
    }
  }
}
