import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// Whole gateways in worlds made from seeds.
@Suite struct GatewaySimulationTests {
  #if DEBUG
    private static let standard = 40
  #else
    private static let standard = 1_000
  #endif

  @Test func everyByteArrivesInPeace() { run(Self.standard, .peace) }
  @Test func nothingIsLostUnderSmallFaults() { run(Self.standard, .nuisance) }
  @Test func nothingIsLeftBehindByChaos() { run(Self.standard * 3, .chaos) }

  private func run(_ standard: Int, _ mood: GatewayScenario.Mood) {
    for seed in Seeds.run(standard) {
      var scenario = GatewayScenario(seed: seed, mood)
      if let failure = scenario.run() {
        Issue.record("\(mood): \(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
  }
}

/// A world made from a seed, what happens in it, and what must hold afterwards.
struct GatewayScenario {
  enum Mood {
    /// Slow and odd peers, but no failures: everything must arrive.
    case peace
    /// Failures that no connection may feel.
    case nuisance
    /// Everything at once: whatever is cut must look cut, and nothing may be left.
    case chaos
  }

  let seed: UInt64
  let mood: Mood
  private var random: SimRandom
  private var bad = 0

  init(seed: UInt64, _ mood: Mood) {
    self.seed = seed
    self.mood = mood
    random = SimRandom(seed: seed &* 3 &+ (mood == .peace ? 0 : mood == .nuisance ? 1 : 2))
  }

  mutating func run() -> String? {
    let (shape, options) = (makeShape(), makeOptions())
    var plans = SimRandom(seed: random.next())
    let isChaos = mood == .chaos
    let world = GatewayWorld(seed: seed, shape, options) { Self.serverPlan(&plans, isChaos: isChaos) }
    prepare(world, options)
    let clients = 1 + random.below(12)
    for _ in 0..<clients { addClient(to: world) }
    if isChaos { trouble(world) }
    let limit =
      world.network.clock + (isChaos ? random.pick([50, 1_000, 20_000]) * 1_000_000 : 100_000_000_000)
    world.run(until: limit) { world.clients.count == clients && world.peers.values.allSatisfy(\.isDone) }
    if !isChaos, world.failures.isEmpty { checkDelivery(world) }
    world.finish()
    if world.failures.isEmpty { checkEnds(world) }
    return world.failures.first.map { "\($0); sessions ended: \(world.reasons)" }
  }

  // MARK: Making

  private mutating func makeShape() -> GatewayWorld.Shape {
    var shape = GatewayWorld.Shape()
    shape.cores = 1 + random.below(2)
    shape.buffers = random.pick([(4, 4096), (16, 4096), (64, 4096), (256, 4096), (256, 64), (8, 512)])
    shape.endpoints = 1 + random.below(4)
    shape.isEager = random.chance(300)
    shape.sharesListener = random.chance(300)
    if mood == .chaos { shape.connectionLimit = random.pick([1, 3, 1000, 1000]) }
    return shape
  }

  private mutating func makeOptions() -> GatewayOptions {
    var options = GatewayOptions()
    options.raceDelay = .milliseconds(random.pick([0, 50, 250]))
    options.connectTimeout = .milliseconds(random.pick([500, 2000]))
    options.balance = random.pick([.roundRobin, .leastConnections])
    options.proxyProtocolIn = random.chance(200) ? .on : .off
    options.proxyProtocolOut = random.pick([.off, .off, .v1, .v2])
    if mood == .chaos, random.chance(300) { options.idleTimeout = .milliseconds(random.pick([20, 1000])) }
    if mood == .chaos, random.chance(100) { options.maxConnectionsPerSource = 1 }
    return options
  }

  private mutating func prepare(_ world: GatewayWorld, _ options: GatewayOptions) {
    world.capacity = random.pick([1_000, 20_000, 100_000, 400_000])
    world.network.wire = random.pick([(1_000, 1_000), (20_000, 500_000), (1_000_000, 5_000_000)])
    var faults = SimFaults()
    if mood != .peace { faults.mild = random.pick([2, 20, 150]) }
    if mood == .chaos {
      faults.fatal = random.pick([0, 0, 2, 20])
      faults.scarce = random.pick([0, 0, 50, 500])
      if random.chance(200) { world.network.descriptorLimit = 6 + random.below(20) }
    }
    faults.noPipes = random.chance(200)
    faults.pipeCapacity = random.pick([1 << 20, 65_536, 4096])
    for kernel in world.kernels { kernel.faults = faults }
    // One endpoint stays good, unless all may go.
    for endpoint in world.endpoints.dropFirst(mood == .chaos ? 0 : 1) where random.chance(300) {
      endpoint.down(as: random.pick([.refusing, .blackHole, .unreachable]))
      bad += 1
    }
  }

  static func serverPlan(_ random: inout SimRandom, isChaos: Bool) -> ScriptedPeer.Plan {
    var plan = ScriptedPeer.Plan()
    plan.chunk = random.size(upTo: 60_000)
    let isBulk = random.chance(isChaos ? 300 : 150)
    plan.total = SimStream.nameBytes + random.size(upTo: isBulk ? 900_000 : 30_000)
    if isBulk { plan.chunk = 60_000 }
    plan.pause = random.chance(300) ? UInt64(random.below(2_000_000)) : 0
    if plan.total / plan.chunk > 200 { plan.chunk = plan.total / 200 + 1 }
    switch random.below(6) {
    case 0, 1:
      // An echo of a megabyte in small pieces with pauses would outlast the run.
      (plan.echoes, plan.pause) = (true, 0)
    case 2: plan.waitsForEnd = true
    case 3: plan.readsAfter = UInt64(random.below(3_000)) * 1_000_000
    case 4: plan.speaksAfter = UInt64(random.below(1_000)) * 1_000_000
    default: break
    }
    if isChaos, random.chance(200) { plan.resetsAt = random.below(isBulk ? 500_000 : 20_000) }
    return plan
  }

  private mutating func addClient(to world: GatewayWorld) {
    var plan = Self.serverPlan(&random, isChaos: mood == .chaos)
    plan.echoes = false
    // Two sides that both wait for the other's end would wait for ever.
    plan.waitsForEnd = false
    if mood == .chaos, random.chance(150) { plan.wants = random.below(10_000) }
    var prologue: [UInt8]?
    if world.options.proxyProtocolIn == .on {
      let (from, to) = (Address.v4(0x0102_0304, port: 77), Address.v4(0x0506_0708, port: 88))
      prologue =
        random.chance(500)
        ? ProxyProtocol.line(source: from, destination: to)
        : ProxyProtocol.block(source: from, destination: to)
      plan.chunk = max(plan.chunk, random.size(upTo: 200))
      // The whole header must be there in time.
      if plan.speaksAfter > 2_000_000_000 || plan.pause > 1_000_000 { plan.pause = 1_000_000 }
      if mood == .chaos, random.chance(100) { prologue = Array("GET / HTTP/1.1\r\n".utf8) }
    }
    world.addClient(
      after: UInt64(random.below(random.pick([1, 50, 2_000]))) * 1_000_000, plan, prologue: prologue)
  }

  /// Endpoints come and go, processes stop, the control thread has news, and perhaps the gateway drains.
  private mutating func trouble(_ world: GatewayWorld) {
    for _ in 0..<random.below(8) {
      let when = UInt64(random.below(3_000)) * 1_000_000
      let endpoint = random.below(world.endpoints.count)
      let kind = random.below(9)
      let status = random.pick(EndpointBoard.Status.allCases)
      let host: SimNetwork.Host = random.pick([.refusing, .blackHole, .unreachable])
      world.network.after(when) { [unowned world] in
        let target = world.endpoints[endpoint]
        switch kind {
        case 0, 1: target.up()
        case 2: target.down(as: host)
        case 3: target.isStopped = true
        case 4: target.resume()
        case 5: world.tell(.endpointHung(endpoint))
        case 6: _ = world.shared.board.set(endpoint, status)
        case 7: world.tell(.table(world.table([endpoint])))
        default: world.tell(.ping)
        }
      }
    }
  }

  // MARK: Judging

  /// Without failures everything arrives, and soon enough.
  private func checkDelivery(_ world: GatewayWorld) {
    let race = max(world.options.raceDelay.span, .zero)
    let connect = world.options.connectTimeout.span
    let slow = race > .zero ? race.nanoseconds : connect.nanoseconds
    let patience = UInt64(bad) * slow + connect.nanoseconds + 1_000_000_000
    for client in world.clients {
      guard let server = client.partner else {
        world.fail("client \(client.state) found no endpoint")
        continue
      }
      // A side that closes while bytes come in cuts the other off, as TCP does.
      if client.socket.didReset || server.socket.didReset { continue }
      for (from, to) in [(client, server), (server, client)] where to.received != from.sent || !to.isDone {
        world.fail("not all arrived: \(from.state) -> \(to.state)")
      }
      guard client.plan.speaksAfter == 0, client.prologue == nil, world.options.proxyProtocolIn == .off else {
        continue
      }
      if server.start > client.start + patience {
        world.fail("a client waited \((server.start - client.start) / 1_000_000) ms for an endpoint")
      }
    }
  }

  /// Whoever saw a clean end got everything; a stream that was cut looks cut.
  private func checkEnds(_ world: GatewayWorld) {
    let counters = world.shared.counters
    let wasClosed = counters.sum(.ended(.idle)) + counters.sum(.ended(.drained)) > 0
    for peer in world.peers.values where peer.sawCleanEnd {
      guard let partner = peer.partner else { continue }
      let ended = partner.isShut || (partner.isDone && !partner.wasReset)
      if ended, peer.received == partner.sent { continue }
      if wasClosed { continue }
      world.fail("a cut looks like an end: \(partner.state) -> \(peer.state)")
    }
  }
}
