import Testing

@testable import Proxy

@Suite struct ReplayTests {
  private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

  private static func frame(_ type: UInt8, _ payload: [UInt8]) -> [UInt8] {
    [0, 0, UInt8(payload.count), type, 0, 0, 0, 0, 0] + payload
  }

  private static func record(_ type: UInt8, _ payload: [UInt8]) -> [UInt8] {
    [type, 3, 1, UInt8(payload.count >> 8), UInt8(payload.count & 255)] + payload
  }

  @Test func nothingAndGreetingsHaveNoEffect() {
    #expect(Replay.hasNoEffect([]))
    #expect(Replay.hasNoEffect(Self.record(22, [UInt8](repeating: 1, count: 500))))
    #expect(Replay.hasNoEffect(Self.preface))
    let settings = Self.frame(4, [0, 3, 0, 0, 0, 100])
    #expect(
      Replay.hasNoEffect(
        Self.preface + settings + Self.frame(8, [0, 0, 1, 0]) + Self.frame(6, .init(repeating: 0, count: 8))))
    for method in ["GET ", "HEAD ", "OPTIONS "] {
      #expect(Replay.hasNoEffect(Array("\(method)/version HTTP/1.1\r\n".utf8)))
    }
  }

  @Test func whatMayHaveAnEffectIsNeverSafe() {
    // Early data, an HTTP/2 request, an HTTP/1.1 write, and a protocol nobody here knows.
    #expect(!Replay.hasNoEffect(Self.record(22, [1, 2, 3]) + Self.record(23, [9])))
    #expect(!Replay.hasNoEffect(Self.preface + Self.frame(4, []) + Self.frame(1, [0x82])))
    #expect(!Replay.hasNoEffect(Array("POST /v3/kv/put HTTP/1.1\r\n".utf8)))
    // A safe request with something behind it: another request, or a body.
    #expect(Replay.hasNoEffect(Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)))
    #expect(!Replay.hasNoEffect(Array("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /v3/kv/put HTTP/1.1\r\n".utf8)))
    #expect(!Replay.hasNoEffect([0x00, 0x01]))
  }

  /// However the bytes are cut, safety is only ever lost, and the verdict on the whole is the same.
  @Test func everyCutComesToTheSameVerdict() {
    let safe = Self.preface + Self.frame(4, [0, 3, 0, 0, 0, 100]) + Self.frame(8, [0, 0, 1, 0])
    let unsafeBytes = safe + Self.frame(1, [0x82, 0x86])
    for cut in 0...safe.count {
      var replay = Replay(prefix: [7], first: Array(safe[..<cut]))
      replay.take(Array(safe[cut...]).span.bytes)
      #expect(replay.isSafe && replay.all == [7] + safe)
      replay.take(Array(unsafeBytes[safe.count...]).span.bytes)
      #expect(!replay.isSafe)
    }
  }

  @Test func moreThanAGreetingBindsTheConnection() {
    var replay = Replay(prefix: [], first: Self.record(22, [UInt8](repeating: 0, count: 4000)))
    #expect(replay.isSafe)
    replay.take([UInt8](repeating: 22, count: 100).span.bytes)
    #expect(!replay.isSafe)
  }

  @Test func noBytesTrap() {
    var storm = ByteStorm(seed: 11)
    for _ in 0..<20_000 { _ = Replay.hasNoEffect([22] + storm.noise(upTo: 40)) }
    for _ in 0..<20_000 { _ = Replay.hasNoEffect(Self.preface + storm.noise(upTo: 40)) }
  }
}

@Suite struct GreetingTests {
  @Test func tellsTheProtocolOnlyWhenThereIsNoDoubt() {
    func spoken(_ text: String) -> EndpointBoard.Spoken { Greeting.spoken(Array(text.utf8).span.bytes) }
    #expect(spoken("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == .http)
    #expect(spoken("POST /v3/kv/range HTTP/1.1\r\n") == .http)
    #expect(spoken("\u{16}\u{3}\u{1}") == .tls)
    for other in ["", "P", "PRI * HTTP/2.0", "POSTER", "hello", "\u{16}hello", "\u{16}"] {
      #expect(spoken(other) == .unknown, "\(other)")
    }
  }
}
