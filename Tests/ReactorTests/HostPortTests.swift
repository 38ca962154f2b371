import Testing

import Reactor

@Suite struct HostPortTests {
  /// The cases of Go's `TestSplitHostPort`, by their meaning.
  @Test(arguments: [
    ("localhost:http", "localhost", "http"), ("localhost:80", "localhost", "80"),
    ("localhost%lo0:80", "localhost%lo0", "80"), ("[localhost%lo0]:80", "localhost%lo0", "80"),
    ("127.0.0.1:80", "127.0.0.1", "80"), ("[::1]:http", "::1", "http"), ("[fe80::1%3]:80", "fe80::1%3", "80"),
    (":80", "", "80"), ("localhost:", "localhost", ""), (":", "", ""), ("[]:1", "", "1"), ("é:1", "é", "1"),
  ])
  func splits(text: String, host: String, port: String) throws {
    let pair = try HostPort(text)
    #expect(pair == HostPort(host: host, port: port))
  }

  @Test(arguments: [
    ("", HostPort.Reason.missingPort), ("golang.org", .missingPort), ("127.0.0.1", .missingPort),
    ("[::1]", .missingPort), ("[fe80::1%3]", .missingPort), ("[localhost]", .missingPort),
    ("[a]b:1", .missingPort),
    ("::1", .tooManyColons), ("fe80::1%3", .tooManyColons), ("a:b:80", .tooManyColons),
    ("[a]:b:1", .tooManyColons),
    ("[foo:bar", .missingCloseBracket), ("[foo]bar[", .missingPort), ("[foo]:[bar]:baz", .tooManyColons),
    ("[foo[bar]:baz", .unexpectedOpenBracket), ("foo[bar:baz", .unexpectedOpenBracket),
    ("[foo]:[bar", .unexpectedOpenBracket), ("foo]bar:baz", .unexpectedCloseBracket),
    ("[foo]:bar]", .unexpectedCloseBracket), ("foo:bar]", .unexpectedCloseBracket),
  ])
  func refuses(text: String, reason: HostPort.Reason) {
    #expect(Self.malformed(text)?.reason == reason)
    #expect(Self.malformed(text)?.text == text)
  }

  static func malformed(_ text: String) -> HostPort.Malformed? {
    do throws(HostPort.Malformed) { _ = try HostPort(text) } catch { return error }
    return nil
  }

  @Test func wordsErrorsAsGoDoes() {
    #expect(Self.malformed("localhost")?.description == "address localhost: missing port in address")
    #expect(Self.malformed("::1")?.description == "address ::1: too many colons in address")
    #expect(Self.malformed("[::1:1")?.description == "address [::1:1: missing ']' in address")
    #expect(Self.malformed("a[:1")?.description == "address a[:1: unexpected '[' in address")
    #expect(Self.malformed("a]:1")?.description == "address a]:1: unexpected ']' in address")
  }

  @Test func joinsAgain() throws {
    for text in ["localhost:80", "[::1]:80", ":80", "[fe80::1%3]:x"] {
      #expect(try "\(HostPort(text))" == text)
    }
  }

  @Test(arguments: [("0", 0), ("65535", 65535), ("02379", 2379)] as [(String, UInt16)])
  func readsPorts(text: String, number: UInt16) {
    #expect(HostPort(host: "", port: text).portNumber == number)
  }

  @Test(arguments: ["", "65536", "+1", "-1", "1 ", "http", "0x10", "99999999999999999999", "1\0"])
  func refusesPorts(text: String) { #expect(HostPort(host: "", port: text).portNumber == nil) }
}
