internal import Glibc
internal import Reactor

/// The gateway's control thread: signals, DNS, health checks, the metrics page, systemd. It never touches a client's
/// bytes, so whatever it does cannot delay them.
final class ControlCore: Core {
  /// Who a completion belongs to.
  private enum Owner {
    static let prober: UInt8 = 1
    static let resolver: UInt8 = 2
    static let admin: UInt8 = 3
    static let control: UInt8 = 4
    static let discovery: UInt8 = 5
  }

  private static let tick = Instant.Span.seconds(1)
  /// Pings a core may leave unanswered before the watchdog is no longer fed.
  private static let silentTicks: UInt64 = 10

  private let shared: GatewayShared
  private let manager: ServiceManager
  private let signals: Int32
  private var endpoints: EndpointSource?
  private var prober: Prober?
  private var admin: AdminServer?
  private var pingsSent: UInt64 = 0
  private var isStarting = true
  private var isAborted = false
  private var isDraining = false
  private var watchdogDue = Instant.distantFuture

  init(kernel: Kernel, shared: GatewayShared, manager: ServiceManager, signals: Int32) {
    self.shared = shared
    self.manager = manager
    self.signals = signals
    super.init(index: shared.links.count, kernel: kernel)
    shared.control.attach(kernel)
    awaitSignal()
  }

  private func token(_ operation: UInt8) -> Token {
    Token(owner: Owner.control, operation: operation, handle: Handle(slot: 0, generation: 0))
  }

  // MARK: Starting

  /// Finds the endpoints; turns the loop until every name has been looked up once.
  ///
  /// - Throws: a sentence for the operator when there is no endpoint to go to.
  func findEndpoints() throws(StartFailure) -> EndpointTable {
    let source = try EndpointSource(
      core: self, context: shared.endpoints, resolverOwner: Owner.resolver, discoveryOwner: Owner.discovery)
    endpoints = source
    source.start()
    while !source.isSettled && !isAborted { turn() }
    try checkAborted()
    return try source.firstTable()
  }

  /// - Throws: when a signal has come before the start was through.
  func checkAborted() throws(StartFailure) {
    if isAborted { throw StartFailure("stopped by a signal before it was ready", status: 0) }
  }

  /// The address to listen on; turns the loop while a name is looked up.
  func resolve(_ listen: ListenAddress) throws(StartFailure) -> Address {
    if let address = listen.address { return address }
    guard let found = endpoints?.lookUp(listen.host, port: listen.port, whileWaiting: { turn() }) else {
      throw StartFailure("failed to resolve listen host: \(listen.host)")
    }
    return found
  }

  /// Starts checking, serving the metrics page and feeding the watchdog, once the cores run.
  func startServices(adminListener: Int32?) {
    let prober = Prober(
      core: self, owner: Owner.prober, shared: shared, tls: try? TLSContext.client(trustedCAFile: nil))
    self.prober = prober
    endpoints?.changed = { [unowned self] table in
      for link in shared.links { _ = link.send(.table(table), from: kernel) }
      prober.watch(table.endpoints)
    }
    if let table = endpoints?.table { prober.watch(table.endpoints) }
    if let adminListener {
      let pages = GatewayPages(shared: shared) { [unowned self] in endpoints?.table.endpoints ?? [] }
      admin = try? AdminServer(core: self, owner: Owner.admin, listener: adminListener, page: pages.answer)
    }
    isStarting = false
    if let interval = manager.watchdogInterval { watchdogDue = now + interval }
    scheduleTick()
  }

  // MARK: Dispatch

  override func complete(_ completion: Completion) {
    switch completion.token.owner {
    case Owner.prober: prober?.complete(completion)
    case Owner.resolver, Owner.discovery: endpoints?.complete(completion)
    case Owner.admin: admin?.complete(completion)
    default: signalCame()
    }
  }

  override func expire(_ token: Token) {
    switch token.owner {
    case Owner.prober: prober?.tick()
    case Owner.resolver, Owner.discovery: endpoints?.expire(token)
    case Owner.admin: admin?.expire(token)
    default: tickCame()
    }
  }

  // MARK: Time

  private func scheduleTick() { _ = timers.schedule(at: now + Self.tick, token(1)) }

  private func tickCame() {
    scheduleTick()
    endpoints?.tick()
    for link in shared.links where link.send(.ping, from: kernel) {}
    pingsSent += 1
    feedWatchdog()
  }

  /// Systemd restarts a process that stops feeding: so it is fed only while every core turns.
  private func feedWatchdog() {
    guard let interval = manager.watchdogInterval, now + Self.tick >= watchdogDue else { return }
    let alive = shared.links.allSatisfy { $0.answeredPings + Self.silentTicks > pingsSent }
    if alive { manager.keepAlive() }
    watchdogDue = now + Instant.Span(nanoseconds: interval.nanoseconds / 2)
  }

  // MARK: Signals

  private func awaitSignal() { kernel.poll(signals, for: .readable, token(0)) }

  private func signalCame() {
    while let kind = Signals.next(signals) {
      switch kind {
      case .reload where isStarting: break
      case .end where isStarting: isAborted = true
      case .reload: reload()
      case .end where isDraining: stop()
      case .end: drain()
      }
    }
    awaitSignal()
  }

  private func reload() {
    shared.log.info("reloading: resolving endpoints anew")
    manager.reloading(at: now)
    endpoints?.refresh()
    prober?.probeAll()
    manager.ready()
  }

  private func drain() {
    isDraining = true
    shared.log.info(
      "shutting down; a second signal ends at once",
      .duration("drain-timeout", nanoseconds: shared.options.drainTimeout.nanoseconds),
      .int("connections", Int64(shared.admission.active)))
    manager.stopping()
    let deadline = now + shared.options.drainTimeout.span
    for link in shared.links { _ = link.send(.drain(until: deadline), from: kernel) }
  }

  private func stop() {
    for link in shared.links { _ = link.send(.stop, from: kernel) }
  }

  /// Ends the loop when the last core's thread has returned.
  override func woken() {
    if shared.runningCores == 0 { isFinished = true }
  }
}
