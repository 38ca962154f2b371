import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// A real core of the gRPC proxy on a simulated kernel, with clients and etcds around it.
final class ProxyWorld {
  static let proxy = Address.v4(0x0A00_0001, port: 23_790)

  let network: SimNetwork
  let shared: ProxyShared
  let kernel: SimKernel
  let core: ProxyCore
  private(set) var endpoints: [ProxyEndpoint] = []
  private(set) var clients: [ProxyClient] = []
  var calls: [Int: ProxyCall] = [:]
  private(set) var failures: [String] = []
  private var turnsAtOnce = 0
  private var isDraining = false
  var capacity = 65_536

  init(
    seed: UInt64, endpoints count: Int, buffers: (Int, Int) = (64, 4096), isEager: Bool = false,
    _ options: GRPCProxyOptions = .init()
  ) {
    network = SimNetwork(seed: seed)
    let network = network
    shared = ProxyShared(
      options: options, log: GatewayWorld.log, cores: 1, backend: .epoll, connectionLimit: 1000)
    kernel = SimKernel(network, buffers: BufferPool(count: buffers.0, size: buffers.1), isEager: isEager)
    let listener = network.listen(Self.proxy, backlog: 128)
    guard
      let core = try? ProxyCore(
        index: 0, kernel: kernel, shared: shared, table: Self.table(Array(0..<count)),
        listeners: [network.hold(listener)], pages: nil, tls: (nil, nil))
    else { preconditionFailure("no memory for a core") }
    self.core = core
    shared.group.attach(0, kernel)
    endpoints = (0..<count).map { ProxyEndpoint(self, Self.address($0)) }
    kernel.socketCapacity = { [unowned self] in capacity }
    kernel.submit()
    for endpoint in endpoints { endpoint.up() }
  }

  deinit {
    network.dismantle()
    if !core.gate.isDrained { _ = Unmanaged.passRetained(core) }
  }

  static func address(_ endpoint: Int) -> Address { .v4(0x0A00_0100 + UInt32(endpoint), port: 2379) }

  static func table(_ order: [Int]) -> EndpointTable {
    let all = order.map {
      Endpoint(slot: $0, name: "e\($0)", addresses: [address($0)], priority: 0, weight: 1)
    }
    return EndpointTable(endpoints: all, balance: .roundRobin)
  }

  func fail(_ text: String) { if failures.count < 20 { failures.append(text) } }

  func addClient(
    after delay: UInt64, _ calls: [ProxyCall], atOnce: Int, creditDelay: UInt64 = 0, window: Int = 65_535
  ) {
    for call in calls { self.calls[call.id] = call }
    network.after(delay) { [unowned self] in
      let socket = network.makeSocket(capacity: capacity)
      let client = ProxyClient(self, socket, calls, atOnce: atOnce, creditDelay: creditDelay, window: window)
      clients.append(client)
      let source = Address.v4(0x0A01_0000 + UInt32(clients.count), port: 40_000)
      network.connect(socket, from: source, to: Self.proxy) { code in
        if code == 0 { client.poke() } else { client.end() }
      }
    }
  }

  func ended(_ call: ProxyCall) {
    if call.ends > 1 { fail("a call ended twice: \(call.state)") }
    guard call.status == "0" else { return }
    if call.received != call.total(request: false) { fail("a cut answer looks whole: \(call.state)") }
    if call.acted == 0, call.shape != .shared { fail("nobody acted on it: \(call.state)") }
  }

  /// Where a call is that should have ended.
  func state(of call: ProxyCall) -> String {
    var text =
      "the core has \(core.calls.count) calls, \(core.clients.count) clients, \(core.waiting.count) wait"
    core.calls.forEach { _, held in
      text += "; \(held.method) \(held.phase) request \(held.request.count) response \(held.response.count)"
    }
    for client in clients { text += "; \(client.state)" }
    return text
  }

  func tell(_ message: ProxyMessage) { _ = shared.group.links[0].send(message, from: nil) }

  // MARK: Time

  func run(for nanoseconds: UInt64, _ condition: () -> Bool = { false }) {
    let limit = network.clock + nanoseconds
    while network.clock < limit, failures.isEmpty, !condition() {
      let deadline = core.isFinished ? .distantFuture : core.timers.nextDeadline ?? .distantFuture
      let isSlow = network.random.chance(200) && (network.nextEvent ?? .max) <= network.clock + 50_000
      if core.isFinished || !kernel.isReady(deadline) || isSlow {
        if network.step(until: min(limit, deadline.nanoseconds)) { turnsAtOnce = 0 }
      } else {
        turn()
      }
    }
  }

  private func turn() {
    turnsAtOnce += 1
    if turnsAtOnce > 3_000 { fail("the core spins") }
    core.turn()
    // What was given to the kernel lies there untouched until it is looked at.
    while network.random.chance(300), let next = network.nextEvent, next <= network.clock + 50_000 {
      network.step(until: next)
    }
    kernel.submit()
    network.pass(UInt64(network.random.below(30_000)))
  }

  func drain(within span: Instant.Span) {
    guard !isDraining else { return }
    isDraining = true
    tell(.drain(until: network.now + span))
  }

  /// Drains and runs to the end, and checks that nothing is left.
  func finish() {
    drain(within: .seconds(5))
    run(for: 7_000_000_000) { core.isFinished }
    if !core.isFinished, failures.isEmpty {
      fail(
        "not done after the drain: \(core.clients.count) clients, \(core.upstreams.count) upstreams, \(core.calls.count) calls"
      )
    }
    if failures.isEmpty { checkNothingIsLeft() }
    for complaint in network.complaints { fail(complaint) }
  }

  private func checkNothingIsLeft() {
    if core.clients.count != 0 { fail("\(core.clients.count) clients are left") }
    if core.upstreams.count != 0 { fail("\(core.upstreams.count) connections to etcd are left") }
    if core.calls.count != 0 { fail("\(core.calls.count) calls are left") }
    if core.pool.bytesInUse != 0 { fail("\(core.pool.bytesInUse) bytes are in use") }
    if kernel.buffers.held != 0 { fail("\(kernel.buffers.held) buffers are held") }
    if kernel.operationsLeft != 0 { fail("\(kernel.operationsLeft) operations are armed") }
    if network.openDescriptors != 0 { fail("\(network.openDescriptors) descriptors are open") }
    if core.timers.count > 7 { fail("\(core.timers.count) timers are left") }
    let counters = shared.counters
    for method in EtcdMethod.allCases {
      let ended = GRPCStatus.Code.allCases.reduce(0) { $0 + counters.handled(method, $1) }
      if counters.started(method) != ended {
        fail("\(method): \(counters.started(method)) began, \(ended) ended")
      }
    }
    if counters[.accepted] != counters[.closed] + counters[.refused] {
      fail("connections are counted wrongly")
    }
    if shared.admission.active != 0 { fail("admission counts \(shared.admission.active)") }
  }
}
