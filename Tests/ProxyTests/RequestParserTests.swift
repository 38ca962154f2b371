import Testing

import Proxy

@Suite struct RequestParserTests {
  static func parse(_ text: String) -> RequestParser.Verdict { parse(Array(text.utf8)) }
  static func parse(_ bytes: [UInt8]) -> RequestParser.Verdict {
    var parser = RequestParser()
    return parser.parse(bytes.span.bytes)
  }

  static func head(_ text: String) -> RequestHead? {
    guard case .request(let head, let length) = parse(text), length == text.utf8.count else { return nil }
    return head
  }

  /// A request with the given further header lines.
  static func get(_ lines: String..., version: String = "1.1") -> String {
    (["GET / HTTP/\(version)", "Host: h"] + lines + ["", ""]).joined(separator: "\r\n")
  }

  static let usual = """
    GET /metrics/x%20y?a=b?c HTTP/1.1\r
    Host: localhost:2379\r
    User-Agent: Prometheus/2.0\r
    ACCEPT:text/plain;q=0.5, */* \t\r
    Accept: text/html\r
    X-Empty:\r
    X-Odd: caf\u{E9}\r
    \r\n
    """

  @Test func readsARequest() throws {
    let head = try #require(Self.head(Self.usual))
    #expect(head.method == "GET" && head.path == "/metrics/x%20y" && head.query == "a=b?c")
    #expect(head.minorVersion == 1 && head.host == "localhost:2379" && head.keepsAlive)
    #expect(head.body == .none && !head.expectsContinue)
    #expect(head.accept == "text/plain;q=0.5, */*, text/html")
  }

  @Test func stopsAtTheEndOfTheHead() {
    guard case .request(_, let length) = Self.parse(Self.usual + "GET /next") else {
      Issue.record("not a request")
      return
    }
    #expect(length == Self.usual.utf8.count)
  }

  @Test func bytesMayComeOneByOne() {
    let bytes = Array(Self.usual.utf8)
    var parser = RequestParser()
    for count in 0..<bytes.count { #expect(parser.parse(Array(bytes.prefix(count)).span.bytes) == .needMore) }
    #expect(parser.parse(bytes.span.bytes) == Self.parse(bytes))
    #expect(Self.head(Self.usual) != nil)
  }

  @Test(
    arguments: [
      ("/", "/", nil, "h"), ("/?", "/", "", "h"), ("//x", "//x", nil, "h"),
      ("http://a:1/b?c", "/b", "c", "a:1"),
      ("HTTPS://a", "/", nil, "a"), ("http://a?c", "/", "c", "a"), ("http://[::1]:2/", "/", nil, "[::1]:2"),
    ] as [(String, String, String?, String)])
  func readsTargets(target: String, path: String, query: String?, host: String) throws {
    let head = try #require(Self.head("GET \(target) HTTP/1.1\r\nHost: h\r\n\r\n"))
    #expect(head.path == path && head.query == query && head.host == host)
  }

  @Test func readsTheServerAsAWhole() {
    #expect(Self.head("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n")?.path == "*")
    #expect(Self.parse("GET * HTTP/1.1\r\nHost:\r\n\r\n") == .error(status: 400))
  }

  @Test func skipsOneEmptyLineInFront() {
    #expect(Self.head("\r\n" + Self.get()) != nil)
    #expect(Self.head("\r\n\r\n" + Self.get()) == nil)
  }

  @Test func decidesOnKeepingTheConnection() {
    #expect(Self.head(Self.get())?.keepsAlive == true)
    #expect(Self.head(Self.get("Connection: x, Close"))?.keepsAlive == false)
    #expect(Self.head(Self.get("Connection: keep-alive", "Connection: close"))?.keepsAlive == false)
    #expect(Self.head(Self.get(version: "1.0"))?.keepsAlive == false)
    #expect(Self.head(Self.get("Connection: Keep-Alive", version: "1.0"))?.keepsAlive == true)
    #expect(Self.head(Self.get("Connection: closed"))?.keepsAlive == true)
  }

  @Test func readsAnnouncedBodies() {
    #expect(Self.head(Self.get("Content-Length: 0"))?.body == RequestHead.Body.none)
    #expect(Self.head(Self.get("Content-Length: 18446744073709551615"))?.body == .length(.max))
    #expect(Self.head(Self.get("Content-Length: 5", "content-length:5"))?.body == .length(5))
    #expect(Self.head(Self.get("Transfer-Encoding: Chunked"))?.body == .chunked)
    #expect(Self.head(Self.get("Expect: 100-Continue"))?.expectsContinue == true)
    #expect(Self.head(Self.get("Expect: 100-continue", version: "1.0"))?.expectsContinue == false)
  }

  static let badFields: [(String, Int)] = [
    (get("Content-Length: 5", "Content-Length: 6"), 400), (get("Content-Length: 5, 5"), 400),
    (get("Content-Length: +5"), 400), (get("Content-Length:"), 400), (get("Content-Length: 0x5"), 400),
    (get("Content-Length: 18446744073709551616"), 400),
    (get("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
    (get("Transfer-Encoding: chunked", version: "1.0"), 400), (get("Transfer-Encoding: gzip, chunked"), 501),
    (get("Transfer-Encoding:"), 400), (get("Transfer-Encoding: chunked, chunked"), 501),
    (get("Expect: tea"), 417), (get("Host: other"), 400), ("GET / HTTP/1.1\r\n\r\n", 400),
  ]

  static let badLines: [(String, Int)] = [
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (get("X : y"), 400), (get(" folded"), 400), (get("\tfolded"), 400), (get("no colon"), 400),
    (get(": y"), 400),
    (get("X(y): z"), 400), (get("X: a\rb"), 400), (get("X: a\nb"), 400), (get("X: a\0b"), 400),
    (get("X: \u{7F}"), 400), ("GET /\nHost: h\n\n", 400), ("GET / HTTP/1.1\r\r\n", 400), ("\n", 400),
  ]

  static let badRequestLines: [(String, Int)] = [
    ("GET / HTTP/2.0\r\n\r\n", 505), ("PRI * HTTP/2.0\r\n\r\n", 505), ("GET / HTTP/0.9\r\n\r\n", 505),
    ("GET / HTTP/1\r\n\r\n", 400), ("GET / http/1.1\r\n\r\n", 400), ("GET /\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1 \r\n\r\n", 400), (" GET / HTTP/1.1\r\n\r\n", 400),
    ("GET /é HTTP/1.1\r\n\r\n", 400), ("GET /#f HTTP/1.1\r\n\r\n", 400), ("GET x HTTP/1.1\r\n\r\n", 400),
    ("GET ftp://h/ HTTP/1.1\r\n\r\n", 400), ("GET http:///x HTTP/1.1\r\n\r\n", 400),
    ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 400), ("G@T / HTTP/1.1\r\n\r\n", 400),
    ("\u{16}\u{3}\u{1}\u{2}", 400),
  ]

  @Test(arguments: badFields + badLines + badRequestLines)
  func refuses(text: String, status: Int) { #expect(Self.parse(text) == .error(status: status)) }

  @Test func boundsTheHead() {
    let frame = Self.get("X: ").utf8.count
    let room = RequestParser.longestHead - frame
    #expect(Self.head(Self.get("X: " + String(repeating: "y", count: room))) != nil)
    #expect(Self.parse(Self.get("X: " + String(repeating: "y", count: room + 1))) == .error(status: 431))
    #expect(Self.parse("GET /" + String(repeating: "y", count: 20_000)) == .error(status: 414))
    #expect(Self.parse("GET /" + String(repeating: "y", count: 16_000)) == .needMore)
    func many(_ count: Int) -> String {
      "GET / HTTP/1.1\r\nHost: h\r\n" + String(repeating: "X: y\r\n", count: count - 1) + "\r\n"
    }
    #expect(Self.head(many(100)) != nil)
    #expect(Self.parse(many(101)) == .error(status: 431))
  }

  @Test func noBytesAreTooStrange() {
    var storm = ByteStorm(seed: 6)
    var verdicts = (more: 0, request: 0, error: 0)
    let samples = [
      Self.get("Connection: close"), "OPTIONS * HTTP/1.0\r\nExpect: x\r\n\r\n", "\r\nGET /?a HTTP/1.1\r\n",
    ]
    storm.inputs(100_000, from: samples.map { Array($0.utf8) }) { bytes in
      switch Self.parse(bytes) {
      case .needMore: verdicts.more += 1
      case .error: verdicts.error += 1
      case .request(_, let length):
        verdicts.request += 1
        #expect(length <= bytes.count)
      }
    }
    #expect(verdicts.more > 9 && verdicts.request > 9 && verdicts.error > 9)
  }

  @Test func howTheBytesArriveMakesNoDifference() {
    var storm = ByteStorm(seed: 7)
    for _ in 0..<2000 {
      let bytes = storm.mutated(Array(Self.get("Connection: close", "Content-Length: 3").utf8))
      var parser = RequestParser()
      var piecewise = RequestParser.Verdict.needMore
      for count in 0...bytes.count where piecewise == .needMore {
        piecewise = parser.parse(Array(bytes.prefix(count)).span.bytes)
      }
      #expect(piecewise == Self.parse(bytes))
    }
  }
}
