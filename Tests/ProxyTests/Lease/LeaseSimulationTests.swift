import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// Heartbeats through whole proxies.
@Suite struct LeaseSimulationTests {
  #if DEBUG
    private static let standard = 60
  #else
    private static let standard = 1_000
  #endif
  private static let second: UInt64 = 1_000_000_000

  @Test func everyHeartbeatIsAnsweredInPeace() { run(Self.standard, isCalm: true) }
  @Test func nothingIsLostInChaos() { run(2 * Self.standard, isCalm: false) }

  private func run(_ standard: Int, isCalm: Bool) {
    for seed in Seeds.run(standard) {
      var scenario = LeaseScenario(seed: seed, isCalm: isCalm)
      if let failure = scenario.run() {
        Issue.record("\(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
  }

  // MARK: One at a time

  /// Streams of several clients, each with a heartbeat under way.
  private func beating(_ streams: Int, _ leases: LeaseWorld) -> [LeaseScript] {
    (0..<streams).map { number in
      let client = leases.addClient()
      let script = client.open()
      client.beat(script, Int64(number % 10))
      return script
    }
  }

  @Test func manyStreamsAreOneAtEtcd() {
    let leases = LeaseWorld(seed: 1)
    let scripts = beating(50, leases)
    leases.world.run(for: Self.second) { scripts.allSatisfy { $0.answers.count == 1 } }
    #expect(scripts.allSatisfy { $0.answers.count == 1 })
    #expect(leases.streamsAtEtcd == 1)
    #expect(leases.world.core.heartbeats.isIdle == false)
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func aStreamThatNobodyNeedsEnds() {
    let leases = LeaseWorld(seed: 1)
    _ = beating(3, leases)
    leases.world.run(for: Self.second)
    for client in leases.clients { client.end() }
    leases.world.run(for: Self.second)
    #expect(leases.streamsAtEtcd == 1)
    leases.world.run(for: 8 * Self.second)
    #expect(leases.streamsAtEtcd == 0)
    #expect(leases.world.core.calls.count == 0)
    #expect(leases.world.core.heartbeats.isIdle)
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func unansweredHeartbeatsAreAskedForElsewhere() {
    let leases = LeaseWorld(seed: 1, endpoints: 2)
    for endpoint in leases.world.endpoints { endpoint.isSilent = true }
    let scripts = beating(20, leases)
    leases.world.run(for: Self.second)
    let used = leases.world.endpoints.firstIndex { $0.openStreams > 0 } ?? 0
    leases.world.endpoints[1 - used].isSilent = false
    leases.world.endpoints[used].down()
    leases.world.run(for: 5 * Self.second) { scripts.allSatisfy { $0.answers.count == 1 } }
    #expect(scripts.allSatisfy { $0.answers.count == 1 })
    // Twenty requests for ten leases are ten heartbeats; the silent etcd has read none.
    #expect(leases.arrivals.count == 10)
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func aHungEndpointLosesItsHeartbeatsToAnother() {
    let leases = LeaseWorld(seed: 1, endpoints: 2)
    let scripts = beating(5, leases)
    leases.world.run(for: Self.second) { scripts.allSatisfy { $0.answers.count == 1 } }
    let used = leases.world.endpoints.firstIndex { $0.openStreams > 0 } ?? 0
    leases.world.endpoints[used].isStopped = true
    for (client, script) in zip(leases.clients, scripts) { client.beat(script, 77) }
    leases.world.run(for: 2 * Self.second)
    _ = leases.world.shared.board.set(used, .down)
    leases.world.tell(.endpointHung(used))
    leases.world.run(for: Self.second) { scripts.allSatisfy { $0.answers.count == 2 } }
    #expect(scripts.allSatisfy { $0.answers.count == 2 })
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func aMemberWithoutALeaderLosesItsHeartbeatsToOneWithAnother() {
    let leases = LeaseWorld(seed: 1, endpoints: 2)
    let scripts = beating(5, leases)
    leases.world.run(for: Self.second) { scripts.allSatisfy { $0.answers.count == 1 } }
    let used = leases.world.endpoints.firstIndex { $0.openStreams > 0 } ?? 0
    leases.world.endpoints[used].isSilent = true
    for (client, script) in zip(leases.clients, scripts) { client.beat(script, 77) }
    leases.world.run(for: 3 * Self.second)
    #expect(scripts.allSatisfy { $0.answers.count == 1 })
    _ = leases.world.shared.board.set(used, .sick)
    leases.world.run(for: 3 * Self.second) { scripts.allSatisfy { $0.answers.count == 2 } }
    #expect(scripts.allSatisfy { $0.answers.count == 2 })
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func whoIsGoneIsNotSpokenFor() {
    let leases = LeaseWorld(seed: 1)
    leases.world.endpoints[0].down()
    let (gone, here) = (leases.addClient(), leases.addClient())
    gone.beat(gone.open(), 1)
    let script = here.open()
    here.beat(script, 2)
    leases.world.run(for: Self.second)
    gone.end(reset: true)
    leases.world.run(for: Self.second)
    leases.world.endpoints[0].up()
    leases.world.run(for: 5 * Self.second) { script.answers.count == 1 }
    #expect(leases.arrivals.map(\.lease) == [2])
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func noLeaderEndsThoseWhoAskedForOne() {
    let leases = LeaseWorld(seed: 1)
    let client = leases.addClient()
    let (asked, idle) = (client.open([("hasleader", "true")]), client.open([("hasleader", "true")]))
    let other = client.open()
    client.beat(asked, 1)
    client.beat(other, 2)
    leases.world.run(for: Self.second) { asked.answers.count == 1 && other.answers.count == 1 }
    #expect(leases.streamsAtEtcd == 2)
    leases.endStreams(at: 0, "14", "etcdserver: no leader")
    leases.world.run(for: Self.second)
    #expect(asked.status == "14" && idle.status == "14")
    #expect(asked.words == "etcdserver: no leader" && idle.words == asked.words)
    #expect(other.status == nil)
    client.beat(other, 2)
    leases.world.run(for: Self.second) { other.answers.count == 2 }
    #expect(other.answers.count == 2)
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func usersHaveStreamsOfTheirOwnUnderTokensThatAreTaken() {
    let leases = LeaseWorld(seed: 1)
    let principals = leases.world.shared.principals
    for token in ["a1", "a2"] { principals.learn(token: Array(token.utf8), user: Array("alice".utf8)) }
    let client = leases.addClient()
    let (first, second) = (client.open([("token", "a1")]), client.open([("authorization", "a2")]))
    let (bob, nobody) = (client.open([("token", "b")]), client.open())
    for script in [first, second, bob, nobody] { client.beat(script, 5) }
    leases.world.run(for: Self.second)
    #expect([first, second, bob, nobody].allSatisfy { $0.isAnswered })
    #expect(leases.streamsAtEtcd == 3)
    #expect(Set(leases.arrivals.map { $0.token ?? "" }) == ["a2", "b", ""])
    leases.refusedTokens = ["a2", "b"]
    for script in [first, second, bob, nobody] { client.beat(script, 5) }
    leases.world.run(for: Self.second)
    #expect([first, second, nobody].allSatisfy { $0.answers.count == 2 && $0.status == nil })
    #expect(bob.status == "16" && bob.words == "etcdserver: invalid auth token")
    #expect(leases.arrivals.last { $0.token != nil }?.token == "a1")
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func aClientMayWantAStreamOfItsOwn() {
    let leases = LeaseWorld(seed: 1)
    let client = leases.addClient()
    let scripts = (0..<3).map { _ in client.open([("ringway-bypass", "all")]) } + [client.open()]
    for script in scripts { client.beat(script, 1) }
    leases.world.run(for: Self.second)
    #expect(scripts.allSatisfy { $0.isAnswered })
    #expect(leases.streamsAtEtcd == 4)
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func whatIsNoHeartbeatEndsItsStreamBehindTheAnswersBefore() {
    let leases = LeaseWorld(seed: 1)
    let client = leases.addClient()
    let cases: [(bytes: [UInt8], status: String, words: String)] = [
      ([0, 0, 0, 0, 2, 8, 0x80], "13", "grpc: failed to unmarshal the received message"),
      ([1, 0, 0, 0, 0], "13", "grpc: compressed flag set with identity or empty encoding"),
      ([0, 1, 0, 0, 0], "8", "grpc: received message larger than max"),
    ]
    let scripts = cases.map { one in
      let script = client.open()
      client.beat(script, 1)
      client.say(script, one.bytes)
      return script
    }
    let cut = client.open()
    client.say(cut, [0, 0, 0])
    client.halfClose(cut)
    leases.world.run(for: Self.second)
    for (script, one) in zip(scripts, cases) {
      #expect(script.answers.count == 1)
      #expect(script.status == one.status)
      #expect(script.words.hasPrefix(one.words), "\(script.words)")
    }
    #expect(cut.status == "13" && cut.words == "unexpected EOF")
    leases.finish()
    #expect(leases.world.failures == [])
  }

  @Test func aClientThatDoesNotReadCostsLittleAndDelaysNobody() {
    let leases = LeaseWorld(seed: 1)
    let stuck = leases.addClient(window: 2_000)
    stuck.isStuck = true
    let other = leases.addClient()
    let (full, fine) = (stuck.open(), other.open())
    leases.world.run(for: Self.second / 10)
    let before = leases.world.core.pool.bytesInUse
    for round in 0..<20_000 { stuck.beat(full, Int64(round % 50)) }
    leases.world.run(for: 10 * Self.second)
    let bound = Limits.heartbeatAnswerBytes + Limits.clientStreamWindow
    // Both round up to powers of two, and the answers of one turn may go beyond.
    #expect(leases.world.core.pool.bytesInUse - before <= 6 * bound)
    #expect(leases.world.core.shared.counters[.heartbeatsReceived] < 10_000)
    other.beat(fine, 7)
    leases.world.run(for: Self.second) { fine.answers.count == 1 }
    #expect(fine.answers.count == 1)
    stuck.wake()
    stuck.halfClose(full)
    leases.world.run(for: 20 * Self.second) { full.status != nil }
    #expect(full.status == "0")
    #expect(full.answers.count == 20_000)
    leases.finish()
    #expect(leases.world.failures == [])
  }
}

/// A world made from a seed.
struct LeaseScenario {
  private let isCalm: Bool
  private var random: SimRandom
  private let leases: LeaseWorld

  init(seed: UInt64, isCalm: Bool) {
    self.isCalm = isCalm
    var random = SimRandom(seed: seed &* 2 &+ (isCalm ? 0 : 1))
    var options = GRPCProxyOptions()
    options.balance = random.pick([.sticky, .roundRobin, .leastLatency])
    options.keepaliveMinTime = .milliseconds(1)
    leases = LeaseWorld(
      seed: seed, endpoints: 1 + random.below(3), buffers: random.pick([(4, 4096), (16, 512), (64, 16_384)]),
      isEager: random.chance(300), options)
    self.random = random
  }

  mutating func run() -> String? {
    let world = leases.world
    world.capacity = random.pick([2_000, 20_000, 400_000])
    world.network.wire = random.pick([(1_000, 1_000), (20_000, 500_000), (1_000_000, 5_000_000)])
    var faults = SimFaults()
    faults.mild = random.pick([0, 2, 20])
    if !isCalm { faults.fatal = random.pick([0, 0, 1, 5]) }
    world.kernel.faults = faults
    for endpoint in world.endpoints { endpoint.window = random.pick([1_000, 65_535]) }
    var streams: [(LeaseClient, LeaseScript)] = []
    for _ in 0..<1 + random.below(6) {
      let client = leases.addClient(
        window: random.pick([300, 65_535]), creditDelay: random.pick([0, 0, 5_000_000]))
      for _ in 0..<1 + random.below(5) {
        streams.append((client, client.open(random.chance(200) ? [("hasleader", "true")] : [])))
      }
    }
    for _ in 0..<200 {
      world.run(for: UInt64(random.size(upTo: 40)) * 1_000_000)
      let (client, script) = random.pick(streams)
      switch random.below(isCalm ? 90 : 100) {
      case 0..<85: for _ in 0..<random.size(upTo: 60) { client.beat(script, Int64(random.below(12))) }
      case 85: client.halfClose(script)
      case 86..<90: break
      case 90: client.cancel(script)
      case 91: client.end(reset: random.chance(500))
      default: trouble()
      }
      if !world.failures.isEmpty { return world.failures.first }
    }
    for endpoint in world.endpoints { endpoint.up() }
    for endpoint in world.endpoints { endpoint.resume() }
    world.run(for: 60_000_000_000) { streams.allSatisfy { isDone($0.0, $0.1) } }
    for (client, script) in streams where !isDone(client, script) {
      world.fail("never answered: \(script.state); \(client.state); \(state)")
    }
    leases.finish()
    return world.failures.first
  }

  private var state: String {
    let core = leases.world.core
    var text = "\(core.calls.count) calls, \(core.waiting.count) wait, \(leases.streamsAtEtcd) at etcd"
    core.calls.forEach { _, call in
      if call.own != nil { text += "; \(call.phase), tries \(call.tries)" }
    }
    return text
  }

  private func isDone(_ client: LeaseClient, _ script: LeaseScript) -> Bool {
    client.isOver || client.socket.isDisturbed || script.status != nil || script.isAnswered
  }

  private mutating func trouble() {
    let world = leases.world
    let index = random.below(world.endpoints.count)
    let endpoint = world.endpoints[index]
    switch random.below(6) {
    case 0:
      endpoint.down()
      world.network.after(300_000_000) { endpoint.up() }
    case 1:
      endpoint.isStopped = true
      world.network.after(2_000_000_000) { endpoint.resume() }
    case 2: world.tell(.endpointHung(index))
    case 3: endpoint.goAway()
    case 4: leases.endStreams(at: index, "14", "etcdserver: no leader", where: true)
    default: leases.endStreams(at: index, "14", "etcdserver: server stopped")
    }
  }
}
