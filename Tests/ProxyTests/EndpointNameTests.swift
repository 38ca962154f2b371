import Reactor
import Testing

import Proxy

@Suite struct EndpointNameTests {
  static func malformed(_ text: String) -> EndpointName.Malformed? {
    do throws(EndpointName.Malformed) { _ = try EndpointName(text) } catch { return error }
    return nil
  }

  @Test(
    arguments: [
      ("127.0.0.1:2379", "127.0.0.1", 2379, false, "127.0.0.1:2379"),
      ("[::1]:2379", "::1", 2379, false, "[::1]:2379"),
      ("infra0.example.com:1", "infra0.example.com", 1, false, "infra0.example.com:1"),
      ("http://h:65535", "h", 65535, false, "h:65535"),
      ("https://h:1/some/path?a=b#c", "h", 1, true, "h:1"),
      ("HTTPS://h:1", "h", 1, true, "h:1"),
      ("http://h:1?x:2", "h", 1, false, "h:1"),
      ("https://user:pass@word@[::1]:9", "::1", 9, true, "[::1]:9"),
      ("http://[fe80::1%25eth0]:9", "fe80::1%eth0", 9, false, "[fe80::1%eth0]:9"),
      ("[fe80::1%3]:9", "fe80::1%3", 9, false, "[fe80::1%3]:9"),
      ("//h:7/x", "h", 7, false, "h:7"),
      ("etcd.v3+a-b://h:7", "h", 7, false, "h:7"),
      ("unix:2379", "unix", 2379, false, "unix:2379"),
      ("https:2379", "https", 2379, false, "https:2379"),
    ] as [(String, String, UInt16, Bool, String)])
  func readsHosts(text: String, host: String, port: UInt16, isTLSHint: Bool, display: String) throws {
    let name = try EndpointName(text)
    #expect(name.target == .tcp(host: host, port: port))
    #expect(name.displayName == display)
    #expect(name.isTLSHint == isTLSHint)
  }

  @Test(arguments: [
    ("unix:/run/etcd.sock", "/run/etcd.sock", false), ("unix:///run/etcd.sock", "/run/etcd.sock", false),
    ("unixs:///run/etcd.sock", "/run/etcd.sock", true), ("unixs:/r", "/r", true),
    ("unix:@name", "@name", false),
    ("unix:relative", "relative", false), ("unix://relative:1", "relative:1", false),
    ("UNIX:/r", "/r", false),
  ])
  func readsUnixPaths(text: String, path: String, isTLSHint: Bool) throws {
    let name = try EndpointName(text)
    #expect(name.target == .unix(path: path))
    #expect(name.isTLSHint == isTLSHint)
    #expect(name.displayName == "unix:" + path)
  }

  @Test(arguments: [
    ("", "", EndpointName.Reason.notHostPort(.missingPort)), ("h", "h", .notHostPort(.missingPort)),
    ("http://h", "h", .notHostPort(.missingPort)), ("http://h/p:1", "h", .notHostPort(.missingPort)),
    ("::1", "::1", .notHostPort(.tooManyColons)), ("http://::1:1", "::1:1", .notHostPort(.tooManyColons)),
    ("h:http", "h:http", .badPort), ("h:", "h:", .badPort), ("h:0", "h:0", .badPort),
    ("h:65536", "h:65536", .badPort), ("h:+1", "h:+1", .badPort), ("h:1 ", "h:1 ", .badPort),
    ("http:///x", "http:///x", .badPort), (":1", ":1", .badHost), (" h:1", " h:1", .badHost),
    ("a/b:1", "a/b:1", .badHost), ("h\0:1", "h\0:1", .badHost), ("h\u{7F}:1", "h\u{7F}:1", .badHost),
    ("http://a b:1:2", "http://a b:1:2", .notHostPort(.tooManyColons)), ("unix:", "unix:", .badPath),
    ("unix://", "unix://", .badPath), ("unix:/a\0", "unix:/a\0", .badPath),
  ])
  func refuses(text: String, named: String, reason: EndpointName.Reason) {
    #expect(Self.malformed(text)?.reason == reason)
    #expect(Self.malformed(text)?.text == named)
  }

  @Test(
    arguments: [
      ("127.0.0.1:1", .none), ("//h:1", .none), ("http://h:1", .http), ("HTTP://h:1", .http),
      ("https://h:1", .https), ("https:2379", .none), ("http:2379", .none), ("tcp://h:1", .none),
      ("unix:/r", .unix), ("unix:///r", .unix), ("unix:2379", .none), ("unixs:/r", .unixs),
      ("UNIXS:///r", .unixs),
    ] as [(String, EndpointName.Scheme)])
  func keepsTheScheme(text: String, scheme: EndpointName.Scheme) throws {
    let name = try EndpointName(text)
    #expect(name.scheme == scheme)
    #expect(name.isTLSHint == (scheme == .https || scheme == .unixs))
  }

  @Test func tooLongPathIsRefused() {
    #expect(Self.malformed("unix:/" + String(repeating: "a", count: 107))?.reason == .badPath)
    #expect(Self.malformed("unix:/" + String(repeating: "a", count: 106)) == nil)
  }

  @Test func saysItInEtcdsWords() {
    #expect(Self.malformed("http://localhost")?.description == #"error parsing endpoint "localhost""#)
    #expect(
      Self.malformed("a\"\\\n\u{1}\u{1F}é")?.description == #"error parsing endpoint "a\"\\\n\x01\x1fé""#)
  }
}
