import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// Whole proxies in worlds made from seeds.
@Suite struct ProxySimulationTests {
  #if DEBUG
    private static let standard = 60
  #else
    private static let standard = 1_000
  #endif

  @Test func everyCallSucceedsInPeace() { run(Self.standard, .peace) }
  @Test func noCallFeelsSmallFaults() { run(Self.standard, .nuisance) }
  @Test func everyCallEndsOnceInChaos() { run(Self.standard * 3, .chaos) }

  private func run(_ standard: Int, _ mood: ProxyScenario.Mood) {
    for seed in Seeds.run(standard) {
      var scenario = ProxyScenario(seed: seed, mood)
      if let failure = scenario.run() {
        Issue.record("\(mood): \(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
  }
}

/// A world made from a seed, what happens in it, and what must hold afterwards.
struct ProxyScenario {
  enum Mood { case peace, nuisance, chaos }

  private let seed: UInt64
  private let mood: Mood
  private var random: SimRandom
  private var nextCall = 0

  init(seed: UInt64, _ mood: Mood) {
    (self.seed, self.mood) = (seed, mood)
    random = SimRandom(seed: seed &* 3 &+ (mood == .peace ? 0 : mood == .nuisance ? 1 : 2))
  }

  mutating func run() -> String? {
    var options = GRPCProxyOptions()
    options.balance = random.pick([.sticky, .roundRobin, .leastLatency])
    options.keepaliveMinTime = .milliseconds(1)
    let world = ProxyWorld(
      seed: seed, endpoints: 1 + random.below(3), buffers: random.pick([(4, 4096), (16, 512), (64, 16_384)]),
      isEager: random.chance(300), options)
    world.capacity = random.pick([2_000, 20_000, 100_000, 400_000])
    world.network.wire = random.pick([(1_000, 1_000), (20_000, 500_000), (1_000_000, 5_000_000)])
    prepare(world)
    let count = 1 + random.below(5)
    for _ in 0..<count { addClient(to: world) }
    if mood == .chaos { trouble(world) }
    world.run(for: 60_000_000_000) { world.clients.count == count && world.clients.allSatisfy(\.isDone) }
    if world.failures.isEmpty { judge(world) }
    world.finish()
    return world.failures.first
  }

  private mutating func prepare(_ world: ProxyWorld) {
    var faults = SimFaults()
    if mood != .peace { faults.mild = random.pick([2, 20, 100]) }
    if mood == .chaos {
      faults.fatal = random.pick([0, 0, 1, 5])
      faults.scarce = random.pick([0, 0, 50])
    }
    world.kernel.faults = faults
    for endpoint in world.endpoints {
      endpoint.window = random.pick([1_000, 65_535, 400_000])
      endpoint.streams = random.pick([1, 3, 1000])
      if mood == .chaos { endpoint.misdeeds = random.pick([0, 0, 50, 300]) }
    }
  }

  private mutating func addClient(to world: ProxyWorld) {
    let calls = (0..<1 + random.below(20)).map { _ in makeCall() }
    world.addClient(
      after: UInt64(random.below(200)) * 1_000_000, calls, atOnce: 1 + random.below(20),
      creditDelay: random.pick([0, 0, 100_000, 5_000_000]), window: random.pick([500, 65_535, 1 << 20]))
  }

  private mutating func makeCall() -> ProxyCall {
    nextCall += 1
    let shape = random.pick(ProxyCall.Shape.allCases)
    let isLarge = random.chance(150)
    if shape == .shared {
      return misfortune(
        .shared(id: nextCall, isLarge ? random.pick([60_000, 1_100_000]) : random.pick([1, 1000])))
    }
    let call = ProxyCall(
      id: nextCall, shape: shape,
      requestSize: random.size(upTo: isLarge && shape != .download ? 200_000 : 2_000) - 1,
      answerSize: random.size(upTo: isLarge ? 200_000 : 2_000) - 1,
      messages: shape == .watch ? 1 + random.below(5) : 1)
    return misfortune(call)
  }

  private mutating func misfortune(_ call: ProxyCall) -> ProxyCall {
    if mood == .chaos, random.chance(100) { call.cancelsAt = random.below(call.total(request: false)) }
    if mood == .chaos, random.chance(700) { call.timeout = UInt64(1 + random.below(10_000)) * 1_000_000 }
    return call
  }

  private mutating func trouble(_ world: ProxyWorld) {
    for _ in 0..<random.below(10) {
      let when = UInt64(random.below(random.pick([20, 300, 3_000]))) * 1_000_000
      let (index, kind, other) = (random.below(world.endpoints.count), random.below(11), random.below(4))
      world.network.after(when) { [unowned world] in
        let endpoint = world.endpoints[index]
        switch kind {
        case 0: endpoint.down()
        case 1, 2:
          endpoint.down()
          world.network.after(300_000_000) { endpoint.up() }
        case 3: endpoint.goAway()
        case 4:
          endpoint.isStopped = true
          world.network.after(3_000_000_000) { endpoint.resume() }
        case 5: world.tell(.endpointHung(index))
        case 6: world.tell(.table(ProxyWorld.table([index])))
        case 7: _ = world.shared.board.set(index, .down)
        case 8: world.tell(.ping)
        default: world.clients.randomElement(using: &world.network.random)?.misbehave(other)
        }
      }
    }
    let back = UInt64(4_000_000_000)
    world.network.after(back) { [unowned world] in
      world.tell(.table(ProxyWorld.table(Array(world.endpoints.indices))))
      for endpoint in world.endpoints {
        endpoint.up()
        endpoint.misdeeds = 0
      }
    }
    if random.chance(200) {
      world.network.after(UInt64(random.below(5_000)) * 1_000_000) { [unowned world] in
        world.drain(within: .seconds(2))
      }
    }
  }

  private func judge(_ world: ProxyWorld) {
    for call in world.clients.flatMap(\.overdue) {
      return world.fail("never ended: \(call.state); \(world.state(of: call))")
    }
    guard mood != .chaos else { return }
    for call in world.calls.values where call.status != "0" { return world.fail("failed: \(call.state)") }
  }
}
