internal import Glibc
internal import Reactor

/// What the control thread can tell a core of any server.
protocol ControlMessage: Sendable {
  static func table(_ table: EndpointTable) -> Self
  static func endpointHung(_ slot: Int) -> Self
  static func drain(until deadline: Instant) -> Self
  static var stop: Self { get }
  static var ping: Self { get }
}

/// A server's control thread: signals, endpoints and their names, systemd; a subclass adds health checks and pages. It never
/// touches a client's bytes, so whatever it does cannot delay them.
class ControlCore<Message: ControlMessage>: Core {
  /// What every server needs of its own options.
  struct Setup {
    let group: CoreGroup<Message>
    let endpoints: EndpointContext
    let admission: Admission
    let drainTimeout: GoDuration
  }

  /// Pings a core may leave unanswered before the watchdog is no longer fed.
  private static var silentTicks: UInt64 { 10 }
  /// Tokens of this class; those of a subclass are below.
  private static var ownerOfControl: UInt8 { 13 }
  private static var ownerOfResolver: UInt8 { 14 }
  private static var ownerOfDiscovery: UInt8 { 15 }
  private static var tickOperation: UInt8 { 1 }
  private static var lateOperation: UInt8 { 2 }
  /// A core that turns makes room in far less; one that is stuck, or has ended, is not asked as often.
  private static var latePause: Instant.Span { .milliseconds(5) }
  private static var stuckPause: Instant.Span { .seconds(1) }

  let group: CoreGroup<Message>
  let log: Log
  private let setup: Setup
  private let manager: ServiceManager
  private let signals: Int32
  private(set) var endpoints: EndpointSource?
  private var pingsSent: UInt64 = 0
  private var isStarting = true
  private var isAborted = false
  private(set) var isDraining = false
  private var watchdogDue = Instant.distantFuture
  /// What a core's mailbox had no room for, in order: of a core that asked for many pages at once, or is stuck. The
  /// latter gets one ping a second, until the watchdog or the operator acts; at most `Limits.lateMessages`, beyond
  /// which it is past help.
  private var late: [[Message]]

  init(kernel: Kernel, setup: Setup, manager: ServiceManager, signals: Int32) {
    self.setup = setup
    group = setup.group
    log = setup.endpoints.log
    self.manager = manager
    self.signals = signals
    late = Array(repeating: [], count: setup.group.links.count)
    super.init(index: setup.group.links.count, kernel: kernel)
    group.control.attach(kernel)
    awaitSignal()
  }

  private func token(_ operation: UInt8) -> Token {
    Token(owner: Self.ownerOfControl, operation: operation, handle: Handle(slot: 0, generation: 0))
  }

  // MARK: For subclasses

  /// A completion or timer of the subclass: owners up to 12.
  func completeService(_ completion: Completion) {}
  func serviceTimer(_ token: Token) {}
  /// The endpoints have changed; the cores know already.
  func endpointsChanged(_ table: EndpointTable) {}
  /// Once a second.
  func tick() {}
  /// SIGHUP.
  func reload() {}
  /// SIGTERM; the cores have been told.
  func drain() {}
  /// A core rang: there may be messages for the subclass.
  func coreRang() {}
  /// Whether the process may end when the cores have.
  var isDone: Bool { true }

  // MARK: Starting

  /// Finds the endpoints; turns the loop until every name has been looked up once.
  ///
  /// - Throws: a sentence for the operator when there is no endpoint to go to.
  final func findEndpoints() throws(StartFailure) -> EndpointTable {
    let source = try EndpointSource(
      core: self, context: setup.endpoints, resolverOwner: Self.ownerOfResolver,
      discoveryOwner: Self.ownerOfDiscovery)
    endpoints = source
    source.start()
    while !source.isSettled && !isAborted { turn() }
    try checkAborted()
    return try source.firstTable()
  }

  /// - Throws: when a signal has come before the start was through.
  final func checkAborted() throws(StartFailure) {
    if isAborted { throw StartFailure("stopped by a signal before it was ready", status: 0) }
  }

  /// The address to listen on; turns the loop while a name is looked up.
  final func resolve(_ listen: ListenAddress) throws(StartFailure) -> Address {
    if let address = listen.address { return address }
    guard let found = endpoints?.lookUp(listen.host, port: listen.port, whileWaiting: { turn() }) else {
      throw StartFailure("failed to resolve listen host: \(listen.host)")
    }
    return found
  }

  /// The cores run: from now on endpoints are kept up to date and the watchdog is fed.
  final func started() {
    endpoints?.changed = { [unowned self] table in
      tell { .table(table) }
      endpointsChanged(table)
    }
    if let table = endpoints?.table { endpointsChanged(table) }
    isStarting = false
    if let interval = manager.watchdogInterval { watchdogDue = now + interval }
    scheduleTick()
  }

  /// Sends every core a message.
  final func tell(_ message: () -> Message) {
    for core in group.links.indices { send(message(), to: core) }
  }

  /// Sends one core a message, later if its mailbox is full; the order stays.
  final func send(_ message: Message, to core: Int) {
    guard !late[core].isEmpty || !group.links[core].send(message, from: kernel) else { return }
    if late.allSatisfy(\.isEmpty) { scheduleLate(Self.latePause) }
    if late[core].count < Limits.lateMessages { late[core].append(message) }
  }

  private func scheduleLate(_ pause: Instant.Span) {
    _ = timers.schedule(at: now + pause, token(Self.lateOperation))
  }

  private func sendLate() {
    var isStuck = true
    for core in late.indices {
      let sent = late[core].prefix { group.links[core].send($0, from: kernel) }.count
      late[core].removeFirst(sent)
      if sent > 0 { isStuck = false }
    }
    if !late.allSatisfy(\.isEmpty) { scheduleLate(isStuck ? Self.stuckPause : Self.latePause) }
  }

  // MARK: Dispatch

  override final func complete(_ completion: Completion) {
    switch completion.token.owner {
    case Self.ownerOfResolver, Self.ownerOfDiscovery: endpoints?.complete(completion)
    case Self.ownerOfControl: signalCame()
    default: completeService(completion)
    }
  }

  override final func expire(_ token: Token) {
    switch token.owner {
    case Self.ownerOfResolver, Self.ownerOfDiscovery: endpoints?.expire(token)
    case Self.ownerOfControl where token.operation == Self.lateOperation: sendLate()
    case Self.ownerOfControl: tickCame()
    default: serviceTimer(token)
    }
  }

  // MARK: Time

  private func scheduleTick() { _ = timers.schedule(at: now + .seconds(1), token(Self.tickOperation)) }

  private func tickCame() {
    scheduleTick()
    endpoints?.tick()
    tell { .ping }
    pingsSent += 1
    feedWatchdog()
    tick()
    endWhenAlone()
  }

  /// Systemd restarts a process that stops feeding: so it is fed only while every core turns.
  private func feedWatchdog() {
    guard let interval = manager.watchdogInterval, now + .seconds(1) >= watchdogDue else { return }
    if coresAreAlive { manager.keepAlive() }
    watchdogDue = now + Instant.Span(nanoseconds: interval.nanoseconds / 2)
  }

  /// Whether every core has turned lately.
  private var coresAreAlive: Bool {
    group.links.allSatisfy { $0.answeredPings + Self.silentTicks > pingsSent }
  }

  // MARK: Signals

  private func awaitSignal() { kernel.poll(signals, for: .readable, token(0)) }

  private func signalCame() {
    while let kind = Signals.next(signals) {
      switch kind {
      case .reload where isStarting: break
      case .end where isStarting: isAborted = true
      case .reload: reloadAll()
      case .end where isDraining: tell { .stop }
      case .end: drainAll()
      }
    }
    awaitSignal()
  }

  private func reloadAll() {
    log.info("reloading: resolving endpoints anew")
    manager.reloading(at: now)
    endpoints?.refresh()
    reload()
    manager.ready()
  }

  private func drainAll() {
    isDraining = true
    log.info(
      "shutting down; a second signal ends at once",
      .duration("drain-timeout", nanoseconds: setup.drainTimeout.nanoseconds),
      .int("connections", Int64(setup.admission.active)))
    manager.stopping()
    let deadline = now + setup.drainTimeout.span
    tell { .drain(until: deadline) }
    drain()
  }

  override final func woken() {
    coreRang()
    endWhenAlone()
  }

  /// Ends the loop when the last core's thread has returned.
  final func endWhenAlone() {
    if group.runningCores == 0, isDone { isFinished = true }
  }
}
