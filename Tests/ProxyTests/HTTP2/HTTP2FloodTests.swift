import Reactor
import Testing

@testable import Proxy

/// What peers can do without limit of their own has one of ours.
@Suite struct HTTP2FloodTests {
  private static func lenient() -> HTTP2Settings {
    var settings = HTTP2TestConnection.settings()
    settings.pingMinimum = .zero
    settings.pingsWithoutStream = true
    return settings
  }

  /// How many rounds of frames it takes until the connection fails; the output is read all the time.
  private func rounds(_ most: Int, _ gap: Instant.Span = .zero, _ frames: (Int) -> [TestFrame]) -> (
    Int, SeenEvent?
  ) {
    let connection = HTTP2TestConnection.open(.server, Self.lenient())
    connection.feed([.headers(1, goodRequest)])
    for round in 0..<most {
      connection.now = connection.now + gap
      let seen = connection.feed(frames(round))
      _ = connection.sent()
      if let last = seen.last, case .failed = last { return (round, last) }
    }
    return (most, nil)
  }

  private static let tooMany = SeenEvent.failed(.enhanceYourCalm, "too many frames that lead nowhere")

  @Test func framesThatLeadNowhere() {
    let burst = Int(Limits.http2NoiseBurst)
    let kinds: [(String, Int, @Sendable (Int) -> [TestFrame])] = [
      ("PING", burst, { _ in [.ping()] }),
      ("acknowledged PING", burst, { _ in [.ping(ack: true)] }),
      ("SETTINGS", burst / Int(Limits.http2SettingsNoise), { _ in [.settings()] }),
      ("empty DATA", burst, { _ in [.data(1, [])] }),
      ("padding", burst, { _ in [TestFrame(type: 0, flags: 8, stream: 1, payload: [0])] }),
      ("unknown", burst, { _ in [TestFrame(type: 50)] }),
      ("PRIORITY", burst, { _ in [TestFrame(type: 2, stream: 1, payload: [0, 0, 0, 0, 0])] }),
    ]
    for (name, expected, frames) in kinds {
      let (count, end) = rounds(expected + 200, frames: frames)
      #expect(end == Self.tooMany, "\(name)")
      #expect(count > expected - 200 && count <= expected, "\(name) \(count)")
    }
  }

  private func rounds(_ most: Int, frames: (Int) -> [TestFrame]) -> (Int, SeenEvent?) {
    rounds(most, .zero, frames)
  }

  @Test func theSameSlowlyIsFine() {
    let gap = Instant.Span(nanoseconds: 1_000_000_000 / Limits.http2NoisePerSecond)
    #expect(rounds(2 * Int(Limits.http2NoiseBurst), gap) { _ in [.ping()] }.1 == nil)
  }

  @Test func rapidResets() {
    let burst = Int(Limits.http2ResetBurst)
    let pairs: (Int) -> [TestFrame] = {
      [.headers(UInt32(2 * $0 + 3), goodRequest), .reset(UInt32(2 * $0 + 3), 8)]
    }
    let (count, end) = rounds(burst + 10, frames: pairs)
    #expect(end == .failed(.enhanceYourCalm, "too many streams were reset") && count == burst)
    // Resets that the peer provokes are no better.
    let provoked: (Int) -> [TestFrame] = {
      [.headers(UInt32(2 * $0 + 3), goodRequest), .window(UInt32(2 * $0 + 3), 0)]
    }
    #expect(rounds(burst + 10, frames: provoked).0 == burst)
    let malformed: (Int) -> [TestFrame] = { [.headers(UInt32(2 * $0 + 3), [])] }
    #expect(rounds(burst + 10, frames: malformed).0 == burst)
  }

  @Test func answersThatNobodyReads() {
    let connection = HTTP2TestConnection.open(.server, Self.lenient())
    var count = 0
    while !connection.isFailed, count < 10_000 {
      connection.feed([.ping()])
      count += 1
    }
    #expect(count == Limits.http2AnswerBytes / 17 + 1)
    #expect(connection.sent().last?.goAwayCode == 11)
  }

  @Test func answersThatAreReadLateAreFine() {
    // The output is never empty, but what lies before an answer goes some time.
    let connection = HTTP2TestConnection.open(.server, Self.lenient())
    connection.feed([.settings([(4, 1 << 30)]), .window(0, 1 << 30), .headers(1, goodRequest)])
    connection.session.sendResponseHead(1)
    let bytes = [UInt8](repeating: 0, count: 50_000)
    var sent = 0
    for _ in 0..<5000 {
      connection.feed([.ping()])
      sent += connection.send(1, bytes)
      connection.session.output.consume(min(40_000, connection.session.output.count - 10_000))
      connection.session.outputDrained()
      _ = connection.events()
    }
    #expect(!connection.isFailed && sent > 5000 * 30_000)
  }

  // MARK: Keepalive, as grpc-go's server enforces it

  private func pings(_ connection: HTTP2TestConnection, _ count: Int, apart: Instant.Span) -> Int {
    for sent in 0..<count {
      connection.now = connection.now + apart
      connection.feed([.ping()])
      if connection.isFailed { return sent }
    }
    return count
  }

  @Test func tooManyPings() {
    let connection = HTTP2TestConnection.open(.server)
    connection.feed([.headers(1, goodRequest)])
    #expect(pings(connection, 10, apart: .seconds(4)) == 3)
    let goAway = connection.sent().last
    #expect(goAway?.goAwayCode == 11)
    #expect(goAway.map { Array($0.payload[8...]) } == Array("too_many_pings".utf8))
    #expect(connection.context.counters.floods == 1)
  }

  @Test func pingsAsAllowed() {
    let connection = HTTP2TestConnection.open(.server)
    connection.feed([.headers(1, goodRequest)])
    #expect(pings(connection, 20, apart: .seconds(5)) == 20)
  }

  @Test func pingsWithoutStreams() {
    #expect(pings(HTTP2TestConnection.open(.server), 10, apart: .seconds(60)) == 3)
    #expect(pings(HTTP2TestConnection.open(.server), 10, apart: .seconds(7200)) == 10)
    var settings = HTTP2TestConnection.settings()
    settings.pingsWithoutStream = true
    #expect(pings(HTTP2TestConnection.open(.server, settings), 10, apart: .seconds(60)) == 10)
  }

  @Test func whatWeSendForgivesPings() {
    let connection = HTTP2TestConnection.open(.server)
    connection.feed([.headers(1, goodRequest)])
    for round in 0..<20 {
      if round == 0 { connection.session.sendResponseHead(1) } else { _ = connection.send(1, [1]) }
      #expect(pings(connection, 3, apart: .milliseconds(1)) == 3)
    }
  }
}
