import Reactor
import Simulation
import Testing

@testable import Proxy

/// Whole conversations with random interleaving, windows and cuts.
@Suite struct HTTP2ConversationTests {
  static func settings(_ random: inout SimRandom) -> HTTP2Settings {
    var settings = HTTP2TestConnection.settings()
    settings.streamWindow = 50 + random.size(upTo: random.chance(150) ? 300 : 200_000)
    settings.maxStreamWindow = random.size(upTo: 1 << 20)
    settings.connectionWindow = 65_535 + random.size(upTo: 1 << 20)
    settings.maxHeaderListBytes = 100_000
    settings.pingMinimum = .zero
    settings.pingsWithoutStream = true
    return settings
  }

  @Test(arguments: Seeds.run(12)) func betweenTwoOfOurs(_ seed: UInt64) {
    var random = SimRandom(seed: seed)
    let pool = BlockPool()
    do {
      let plan = TalkPlan(seed: seed, biggest: 100 + random.size(upTo: 60_000))
      let client = OurTalkParty(.client, plan, Self.settings(&random), streams: 20, pool: pool)
      let server = OurTalkParty(.server, plan, Self.settings(&random), streams: 20, pool: pool)
      converse(client, server, plan, steps: 1500)
      #expect(plan.problems.isEmpty, "\(plan.problems)")
      #expect(client.connection.session.sendWindow == server.connection.session.receiveWindow)
      #expect(server.connection.session.sendWindow == client.connection.session.receiveWindow)
      #expect(!client.done.isEmpty)
      #expect(client.done.subtracting(plan.killed) == server.done.subtracting(plan.killed))
    }
    #expect(pool.bytesInUse == 0)
  }

  @Test(arguments: Seeds.run(12)) func ourClientWithNGHTTP2(_ seed: UInt64) {
    var random = SimRandom(seed: seed &+ 1000)
    let plan = TalkPlan(seed: seed, biggest: 100 + random.size(upTo: 60_000))
    let client = OurTalkParty(.client, plan, Self.settings(&random), streams: 20, pool: BlockPool())
    let server = NGHTTP2Party(
      client: false, plan, window: 50 + random.size(upTo: 200_000), table: random.below(8192), streams: 20)
    converse(client, server, plan, steps: 1500)
    #expect(plan.problems.isEmpty, "\(plan.problems)")
    #expect(client.connection.session.receiveWindow == server.remoteWindow)
    #expect(client.connection.session.sendWindow == server.localWindow)
    #expect(!client.done.isEmpty)
  }

  @Test(arguments: Seeds.run(12)) func ourServerWithNGHTTP2(_ seed: UInt64) {
    var random = SimRandom(seed: seed &+ 2000)
    let plan = TalkPlan(seed: seed, biggest: 100 + random.size(upTo: 60_000))
    let client = NGHTTP2Party(
      client: true, plan, window: 50 + random.size(upTo: 200_000), table: random.below(8192), streams: 20)
    let server = OurTalkParty(.server, plan, Self.settings(&random), streams: 20, pool: BlockPool())
    converse(client, server, plan, steps: 1500)
    #expect(plan.problems.isEmpty, "\(plan.problems)")
    #expect(server.connection.session.receiveWindow == client.remoteWindow)
    #expect(server.connection.session.sendWindow == client.localWindow)
    #expect(!server.done.isEmpty)
  }
}
