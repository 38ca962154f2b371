import Reactor
import Simulation
import Testing

@testable import Proxy

/// What is remembered of header blocks is what decoding them again would bring, whoever else sends and however tables change.
@Suite struct ReceivedHeadersTests {
  /// A connection's two ends.
  final class Line {
    var encoder = HeaderEncoder()
    var decoder = HeaderDecoder()
  }

  private static let heads: [[(String, String)]] = [
    goodRequest,
    goodRequest + [("token", "t.1")],
    goodRequest + [("token", "t.2"), ("x-a", "1")],
    [(":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "e")],
  ]
  private static let trailers: [[(String, String)]] = [
    [("grpc-status", "0"), ("grpc-message", "")],
    [("grpc-status", "14"), ("grpc-message", "gone")],
  ]

  @Test func nothingIsRememberedWrongly() {
    let context = HTTP2Context(settings: HTTP2TestConnection.settings(), pool: BlockPool(), hashSeed: 1)
    var room = [UInt8](repeating: 0, count: 1 << 16)
    var hits = 0
    for seed in Seeds.run(40) {
      var random = SimRandom(seed: seed)
      let received = ReceivedHeaders()
      var lines = (0..<3).map { _ in Line() }
      var line = lines[0]
      for _ in 0..<400 {
        // A new connection may have the memory of one that is gone.
        if random.chance(10) { lines[random.below(lines.count)] = Line() }
        if random.chance(300) { line = random.pick(lines) }
        let kind = random.chance(500) ? HeaderBlock.trailers : random.chance(50) ? .discarded : .request
        let usual = kind == .trailers ? Self.trailers : Self.heads
        var fields = random.chance(700) ? usual[0] : random.pick(usual)
        // A field that is new pushes others to new places in the table.
        if random.chance(150) { fields.append(("x-new", "\(random.below(1 << 20))")) }
        let sent = headerList(fields)
        let length = room.withUnsafeMutableBytes { line.encoder.encode(sent, to: $0, context) } ?? 0
        let verdict = room.withUnsafeBytes {
          received.decode($0.first(length), as: kind, with: &line.decoder, limit: 1 << 20)
        }
        #expect(verdict.outcome == .fine)
        guard kind != .discarded else { continue }
        let list = received.last
        #expect(fieldTexts(list) == fields.map { "\($0.0): \($0.1)" }, "seed \(seed)")
      }
      hits += received.hits
    }
    #expect(hits > 20)
  }
}
