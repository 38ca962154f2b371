import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// Real gateway cores on simulated kernels, with clients and endpoints around them.
final class GatewayWorld {
  struct Shape {
    var cores = 1
    var buffers = (count: 64, size: 4096)
    var connectionLimit = 1000
    var endpoints = 1
    var isEager = false
    var sharesListener = false
    var backlog = 128
  }

  static let log: Log = {
    guard let log = try? Log(level: .fatal) else { preconditionFailure("no thread for the log") }
    return log
  }()
  static let gateway = Address.v4(0x0A00_0001, port: 23_790)

  static func address(of endpoint: Int) -> Address { .v4(0x0A00_0100 + UInt32(endpoint), port: 2379) }

  let network: SimNetwork
  let shared: GatewayShared
  let options: GatewayOptions
  private(set) var kernels: [SimKernel] = []
  private(set) var cores: [GatewayCore] = []
  private(set) var endpoints: [ScriptedEndpoint] = []
  var peers: [UInt64: ScriptedPeer] = [:]
  private(set) var clients: [ScriptedPeer] = []
  private(set) var refusedClients = 0
  private(set) var failures: [String] = []
  private(set) var drainDeadline: Instant?
  private var nextName: UInt64
  private var turnsAtOnce = 0
  /// Room of sockets; changed by tests that want small ones.
  var capacity = 65_536

  init(
    seed: UInt64, _ shape: Shape = .init(), _ options: GatewayOptions = .init(),
    plan: @escaping () -> ScriptedPeer.Plan
  ) {
    network = SimNetwork(seed: seed)
    self.options = options
    nextName = seed << 20
    shared = GatewayShared(
      options: options, log: Self.log, cores: shape.cores, backend: .epoll,
      connectionLimit: shape.connectionLimit)
    endpoints = (0..<shape.endpoints).map { ScriptedEndpoint(self, Self.address(of: $0), plan: plan) }
    for endpoint in endpoints { endpoint.up() }
    start(shape)
  }

  deinit {
    network.dismantle()
    // A core that failed its test has operations in flight, which its gate would not forgive.
    for core in cores where !core.gate.isDrained { _ = Unmanaged.passRetained(core) }
  }

  private func start(_ shape: Shape) {
    let common = shape.sharesListener ? network.listen(Self.gateway, backlog: shape.backlog) : nil
    for index in 0..<shape.cores {
      let kernel = SimKernel(
        network, buffers: BufferPool(count: shape.buffers.count, size: shape.buffers.size),
        isEager: shape.isEager)
      kernel.socketCapacity = { [unowned self] in capacity }
      let listener = common ?? network.listen(Self.gateway, backlog: shape.backlog)
      guard
        let core = try? GatewayCore(
          index: index, kernel: kernel, shared: shared, table: table(), listeners: [network.hold(listener)])
      else { return fail("a core could not be made") }
      shared.group.attach(index, kernel)
      kernel.submit()
      kernels.append(kernel)
      cores.append(core)
    }
  }

  func table(_ order: [Int]? = nil) -> EndpointTable {
    let all = (order ?? Array(endpoints.indices)).map {
      Endpoint(slot: $0, name: "e\($0)", addresses: [Self.address(of: $0)], priority: 0, weight: 1)
    }
    return EndpointTable(endpoints: all, balance: options.balance)
  }

  func fail(_ text: String) { if failures.count < 20 { failures.append(text) } }

  // MARK: Peers

  func makeName() -> UInt64 {
    nextName += 1
    return nextName
  }

  /// A client comes after `delay`.
  func addClient(
    after delay: UInt64 = 0, _ plan: ScriptedPeer.Plan, prologue: [UInt8]? = nil,
    _ body: @escaping (ScriptedPeer) -> Void = { _ in }
  ) {
    network.after(delay) { [unowned self] in
      let socket = network.makeSocket(capacity: capacity)
      let name = makeName()
      let source = Address.v4(0x0A01_0000 + UInt32(truncatingIfNeeded: name & 0xFF), port: 40_000)
      let client = ScriptedPeer(self, name: name, socket: socket, plan: plan, prologue: prologue)
      peers[name] = client
      clients.append(client)
      body(client)
      network.connect(socket, from: source, to: Self.gateway) { [unowned self] code in
        if code != 0 { refusedClients += 1 } else { client.poke() }
      }
    }
  }

  func serve(_ socket: SimSocket, at endpoint: ScriptedEndpoint) {
    let peer = ScriptedPeer(
      self, name: makeName(), socket: socket, plan: endpoint.plan(),
      expectsPreamble: options.proxyProtocolOut != .off)
    peer.host = endpoint
    peers[peer.name] = peer
    peer.poke()
  }

  // MARK: Time

  var isOver: Bool { cores.allSatisfy(\.isFinished) }

  /// Runs until then, or until `condition` holds.
  func run(until limit: UInt64, _ condition: () -> Bool = { false }) {
    while network.clock < limit, !isOver, failures.isEmpty, !condition() {
      let ready = cores.indices.filter {
        !cores[$0].isFinished && kernels[$0].isReady(cores[$0].timers.nextDeadline ?? .distantFuture)
      }
      let isSlow = network.random.chance(200) && (network.nextEvent ?? .max) <= network.clock + 50_000
      if ready.isEmpty || isSlow {
        if network.step(until: min(limit, nextTimer)) { turnsAtOnce = 0 }
      } else {
        turn(network.random.pick(ready))
      }
    }
  }

  func run(for nanoseconds: UInt64, _ condition: () -> Bool = { false }) {
    run(until: network.clock + nanoseconds, condition)
  }

  private var nextTimer: UInt64 {
    var earliest = UInt64.max
    for core in cores where !core.isFinished {
      earliest = min(earliest, core.timers.nextDeadline?.nanoseconds ?? .max)
    }
    return earliest
  }

  private func turn(_ index: Int) {
    turnsAtOnce += 1
    if turnsAtOnce > 3_000 { fail("a core spins") }
    cores[index].turn()
    // The world goes on while the core computes.
    while network.random.chance(300), let next = network.nextEvent, next <= network.clock + 50_000 {
      network.step(until: next)
    }
    kernels[index].submit()
    network.pass(UInt64(network.random.below(30_000)))
    if cores[index].isFinished { cores[index].ended() }
  }

  func tell(_ message: CoreMessage) {
    for link in shared.group.links { _ = link.send(message, from: nil) }
  }

  func drain(within span: Instant.Span) {
    let deadline = network.now + span
    drainDeadline = deadline
    tell(.drain(until: deadline))
  }

  /// Drains and runs to the end, and checks that nothing is left.
  func finish() {
    if drainDeadline == nil { drain(within: .seconds(5)) }
    let deadline = drainDeadline ?? network.now
    run(until: deadline.nanoseconds + 1_000_000_000)
    if !isOver, failures.isEmpty { fail("a core is not done a second after the drain's deadline") }
    if failures.isEmpty { checkNothingIsLeft() }
    for complaint in network.complaints { fail(complaint) }
  }

  private func checkNothingIsLeft() {
    for (core, kernel) in zip(cores, kernels) {
      if core.sessions.count != 0 { fail("\(core.sessions.count) sessions are left") }
      if kernel.buffers.held != 0 { fail("\(kernel.buffers.held) buffers are held") }
      if kernel.operationsLeft != 0 { fail("\(kernel.operationsLeft) operations are armed") }
      // Only the core's own timers may be pending: the next sweep, the end of a pause.
      let own = (core.sweepTimer == .none ? 0 : 1) + (core.acceptor.pauseTimer == .none ? 0 : 1)
      if core.timers.count > own { fail("\(core.timers.count - own) timers are left") }
      if core.pipes.made != 0 { fail("\(core.pipes.made) pipes are left") }
    }
    if network.openDescriptors != 0 { fail("\(network.openDescriptors) descriptors are open") }
    checkCounters()
  }

  /// What the gateway says of its sessions' ends.
  var reasons: [String] {
    Session.Reason.allCases.compactMap {
      let count = shared.counters.sum(.ended($0))
      return count == 0 ? nil : "\($0) \(count)"
    }
  }

  private func checkCounters() {
    let counters = shared.counters
    let (accepted, closed, refused) = (counters.sum(.accepted), counters.sum(.closed), counters.sum(.refused))
    if accepted != closed + refused { fail("accepted \(accepted), closed \(closed), refused \(refused)") }
    let ended = Session.Reason.allCases.reduce(0) { $0 + counters.sum(.ended($1)) }
    if ended != closed { fail("closed \(closed), but \(ended) for a reason") }
    if counters.sum(.noEndpoint) != counters.sum(.ended(.noEndpoint)) {
      fail("noEndpoint is counted otherwise")
    }
    if shared.admission.active != 0 { fail("admission counts \(shared.admission.active)") }
    for slot in endpoints.indices where shared.board.active(slot: slot) != 0 {
      fail("endpoint \(slot) has \(shared.board.active(slot: slot)) connections")
    }
  }
}
