import Testing

import Proxy

@Suite struct ResponseWriterTests {
  static func text(_ writer: ResponseWriter, _ write: (ResponseWriter, inout [UInt8]) -> Void) -> String {
    var output: [UInt8] = []
    write(writer, &output)
    return String(decoding: output, as: UTF8.self)
  }

  @Test func writesAWholeResponse() {
    let text = Self.text(ResponseWriter(keepsAlive: true)) { writer, output in
      writer.append(
        status: 200, contentType: "text/plain", headers: [("X-A", "b")], date: 784_111_777,
        body: Array("hello".utf8),
        to: &output)
    }
    #expect(
      text == "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n"
        + "Content-Length: 5\r\nX-A: b\r\n\r\nhello")
  }

  @Test func headHasHeadersOnly() {
    let text = Self.text(ResponseWriter(isHead: true, keepsAlive: true)) {
      $0.append(status: 404, body: Array("gone".utf8), to: &$1)
    }
    #expect(text == "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n")
  }

  @Test(arguments: [204, 304])
  func someStatusesHaveNoBody(status: Int) {
    let text = Self.text(ResponseWriter()) {
      $0.append(status: status, contentType: "a/b", body: [65], to: &$1)
    }
    #expect(!text.contains("Content-") && text.hasSuffix("Connection: close\r\n\r\n"))
  }

  @Test func interimResponsesAreBare() {
    #expect(
      Self.text(ResponseWriter()) { $0.append(status: 100, to: &$1) } == "HTTP/1.1 100 Continue\r\n\r\n")
  }

  @Test func saysWhatBecomesOfTheConnection() {
    func lines(_ keepsAlive: Bool, _ minor: Int) -> String {
      Self.text(ResponseWriter(keepsAlive: keepsAlive, minorVersion: minor)) {
        $0.append(status: 200, to: &$1)
      }
    }
    #expect(!lines(true, 1).contains("Connection"))
    #expect(lines(true, 0).contains("\r\nConnection: keep-alive\r\n"))
    #expect(
      lines(false, 1).contains("\r\nConnection: close\r\n") && lines(false, 0).contains("Connection: close"))
  }

  @Test func nothingBreaksOutOfAHeaderLine() {
    let text = Self.text(ResponseWriter(keepsAlive: true)) {
      $0.append(
        status: 200, contentType: "a\r\nX: y", headers: [("A", "b\nc"), ("A b", "c"), ("", "d"), ("E", "f")],
        to: &$1)
    }
    #expect(text == "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nE: f\r\n\r\n")
  }

  @Test func followsTheRequest() throws {
    func writer(_ text: String) -> ResponseWriter? {
      var parser = RequestParser()
      guard case .request(let head, _) = parser.parse(Array(text.utf8).span.bytes) else { return nil }
      return ResponseWriter(for: head)
    }
    let head = try #require(writer("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    #expect(head.isHead && head.keepsAlive && head.minorVersion == 0)
    let post = try #require(writer("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"))
    #expect(!post.isHead && !post.keepsAlive)
  }

  @Test(
    arguments: [
      (0, "Thu, 01 Jan 1970 00:00:00 GMT"), (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
      (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"), (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
      (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"), (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
      (-5, "Thu, 01 Jan 1970 00:00:00 GMT"), (.max, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] as [(Int64, String)])
  func writesDates(seconds: Int64, text: String) { #expect(HTTPDate.text(secondsSince1970: seconds) == text) }
}
