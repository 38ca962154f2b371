internal import Glibc
internal import Reactor

/// Finding an endpoint that takes the connection, while the client's bytes wait in its socket.
///
/// Two attempts may be under way: the second starts when the first has not answered within `--race-delay`, and the
/// first to connect wins. So a black hole costs a client a fraction of a second, and a refusal nothing.
extension GatewayCore {
  func connect(_ session: inout Session, _ handle: Handle) {
    session.phase = .connecting
    tryNext(&session, handle, second: false)
  }

  /// One address of one endpoint.
  private typealias Target = (endpoint: Endpoint, address: Int)

  /// Starts an attempt at `first`, or at the next endpoint that has not been tried.
  private func tryNext(_ session: inout Session, _ handle: Handle, second: Bool, first: Target? = nil) {
    guard let setup = session.setup else { return }
    var target = first ?? nextTarget(setup)
    while let next = target {
      let code = start(&session, handle, second, next)
      switch code {
      case 0: return
      case EMFILE, ENFILE, ENOMEM, ENOBUFS:
        // This machine's trouble, the same for every endpoint; an attempt under way may still succeed.
        if !setup.isConnecting { awaitDescriptor(&session, handle, next, SystemError(code: code)) }
        return
      default:
        target = nextAddress(next)
        guard target == nil else { continue }
        setup.tried.insert(next.endpoint.slot)
        attemptFailed(next.endpoint, SystemError(code: code))
        target = nextTarget(setup)
      }
    }
    if !setup.isConnecting {
      shared.counters.add(1, core: index, .noEndpoint)
      end(&session, handle, .noEndpoint)
    }
  }

  /// The client stays for as long as a connect may take: others end, and no more of them are let in meanwhile.
  private func awaitDescriptor(
    _ session: inout Session, _ handle: Handle, _ target: Target, _ error: SystemError
  ) {
    guard let setup = session.setup else { return }
    acceptor.pause(error)
    let since = setup.postponed?.since ?? now
    guard now - since < options.connectTimeout.span else { return end(&session, handle, .noDescriptor) }
    if setup.postponed == nil { waiting.append(handle) }
    setup.postponed = .init(since: since, endpoint: target.endpoint, address: target.address)
    cancelTimer(&session)
    session.timer = timers.schedule(
      at: now + .milliseconds(Limits.descriptorPauseMilliseconds), token(Operation.timer, handle))
  }

  /// Goes on where the session found no descriptor.
  private func resume(_ session: inout Session, _ handle: Handle) {
    let target = session.setup?.postponed.map { ($0.endpoint, $0.address) }
    tryNext(&session, handle, second: false, first: target)
  }

  /// Descriptors came free: those who wait for one go before new clients.
  func serveWaiting() {
    let handles = waiting
    waiting.removeAll(keepingCapacity: true)
    for handle in handles {
      _ = sessions.edit(handle) { session in
        guard session.phase == .connecting, let setup = session.setup, !setup.isConnecting,
          let put = setup.postponed
        else { return }
        setup.postponed = nil
        tryNext(&session, handle, second: false, first: (put.endpoint, put.address))
        setup.postponed?.since = put.since
        touch(&session, handle)
      }
    }
  }

  private func nextTarget(_ setup: Session.Setup) -> Target? {
    guard let endpoint = setup.table.pick(shared.board, tried: setup.tried) else { return nil }
    explain(endpoint)
    return (endpoint, 0)
  }

  private func nextAddress(_ target: Target) -> Target? {
    target.address + 1 < target.endpoint.addresses.count ? (target.endpoint, target.address + 1) : nil
  }

  private func explain(_ endpoint: Endpoint) {
    guard log.isEnabled(.debug) else { return }
    log.debug(
      "chose endpoint", .string("address", endpoint.name),
      .string("state", "\(shared.board.status(endpoint.slot))"),
      .uint("priority", UInt64(endpoint.priority)), .uint("weight", UInt64(endpoint.weight)),
      .int("connections", Int64(shared.board.active(slot: endpoint.slot))))
  }

  /// Zero when the attempt is under way, else the errno for which there is no socket.
  private func start(_ session: inout Session, _ handle: Handle, _ second: Bool, _ target: Target) -> Int32 {
    guard let setup = session.setup else { return EINVAL }
    let address = target.endpoint.addresses[target.address]
    let descriptor = kernel.socket(family: address.family)
    guard descriptor >= 0 else { return -descriptor }
    if case .unix = address {} else { kernel.setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1) }
    let attempt = Session.Attempt(
      descriptor: descriptor, endpoint: target.endpoint, address: target.address, started: now)
    if second { setup.attempts.1 = attempt } else { setup.attempts.0 = attempt }
    setup.tried.insert(target.endpoint.slot)
    setup.postponed = nil
    kernel.connect(descriptor, to: address, token(Operation.connect | (second ? 1 : 0), handle))
    scheduleAttemptTimer(&session, handle)
    return 0
  }

  private func scheduleAttemptTimer(_ session: inout Session, _ handle: Handle) {
    guard let setup = session.setup, setup.isConnecting else { return }
    cancelTimer(&session)
    var due = Instant.distantFuture
    for attempt in [setup.attempts.0, setup.attempts.1] where attempt.isInFlight {
      due = min(due, attempt.started + options.connectTimeout.span)
    }
    if setup.attempts.0.isInFlight != setup.attempts.1.isInFlight, options.raceDelay.span > .zero {
      let started = setup.attempts.0.isInFlight ? setup.attempts.0.started : setup.attempts.1.started
      if now < started + options.raceDelay.span { due = min(due, started + options.raceDelay.span) }
    }
    session.timer = timers.schedule(at: due, token(Operation.timer, handle))
  }

  func connectCompleted(_ session: inout Session, _ handle: Handle, _ second: Bool, _ result: Int32) {
    guard let setup = session.setup else { return }
    let attempt = second ? setup.attempts.1 : setup.attempts.0
    if second { setup.attempts.1 = .init() } else { setup.attempts.0 = .init() }
    guard session.phase == .connecting, let endpoint = attempt.endpoint else {
      kernel.close(attempt.descriptor)
      return forgetSetup(&session)
    }
    if result == 0 && !attempt.isAbandoned {
      return established(&session, handle, attempt, endpoint)
    }
    kernel.close(attempt.descriptor)
    // An endpoint has failed when its last address has.
    let next = nextAddress((endpoint, attempt.address))
    if next == nil { attemptFailed(endpoint, SystemError(code: attempt.isAbandoned ? ETIMEDOUT : -result)) }
    tryNext(&session, handle, second: second, first: next)
    if session.phase == .connecting { scheduleAttemptTimer(&session, handle) }
  }

  /// Counts a failed attempt, and takes the endpoint out of rotation when the error speaks of the endpoint and not of
  /// this machine; active checks bring it back.
  private func attemptFailed(_ endpoint: Endpoint, _ error: SystemError) {
    shared.board.add(1, core: index, slot: endpoint.slot, .failed)
    switch error.code {
    case ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ECONNRESET, ENOENT:
      guard shared.board.set(endpoint.slot, .down) else { return }
      log.warn(
        "deactivated endpoint", .string("address", endpoint.name),
        .duration("interval", nanoseconds: options.retryDelay.nanoseconds), .error(error))
    default:
      log.warn(
        "could not connect to endpoint", .string("address", endpoint.name), .error(error))
    }
  }

  /// Phase timers: a header that does not come, an attempt that takes too long, an idle connection.
  func sessionTimerFired(_ session: inout Session, _ handle: Handle) {
    switch session.phase {
    case .header: end(&session, handle, .badHeader)
    case .connecting: attemptTimerFired(&session, handle)
    case .relaying: idleTimerFired(&session, handle)
    case .ending: break
    }
  }

  private func attemptTimerFired(_ session: inout Session, _ handle: Handle) {
    guard let setup = session.setup else { return }
    if setup.attempts.0.isInFlight, setup.attempts.0.started + options.connectTimeout.span <= now {
      setup.attempts.0.isAbandoned = true
      kernel.cancel(token(Operation.connect, handle), on: setup.attempts.0.descriptor)
    }
    if setup.attempts.1.isInFlight, setup.attempts.1.started + options.connectTimeout.span <= now {
      setup.attempts.1.isAbandoned = true
      kernel.cancel(token(Operation.connect | 1, handle), on: setup.attempts.1.descriptor)
    }
    if !setup.isConnecting { return resume(&session, handle) }
    // Only one attempt under way, and it is slow: race it against the next endpoint, or the next address of this one.
    if setup.attempts.0.isInFlight != setup.attempts.1.isInFlight {
      let slow = setup.attempts.0.isInFlight ? setup.attempts.0 : setup.attempts.1
      let other = nextTarget(setup) ?? slow.endpoint.flatMap { nextAddress(($0, slow.address)) }
      if let other { tryNext(&session, handle, second: setup.attempts.0.isInFlight, first: other) }
    }
    if session.phase == .connecting { scheduleAttemptTimer(&session, handle) }
  }

  private func established(
    _ session: inout Session, _ handle: Handle, _ winner: Session.Attempt, _ endpoint: Endpoint
  ) {
    cancelTimer(&session)
    abandonAttempts(&session, handle)
    session.endpoint = winner.descriptor
    session.slot = Int16(endpoint.slot)
    session.connected = now
    session.lastActive = now
    session.phase = .relaying
    shared.board.add(1, core: index, slot: endpoint.slot, .opened)
    shared.counters.observeConnect(now - winner.started, core: index)
    if session.setup?.replay == nil { preload(&session) }
    if options.idleTimeout.span > .zero {
      session.timer = timers.schedule(at: now + options.idleTimeout.span, token(Operation.timer, handle))
    }
  }

  /// Frees what only setting up needed, once the endpoint has answered and no attempt is under way.
  func forgetSetup(_ session: inout Session) {
    guard session.phase == .relaying, let setup = session.setup, session.isAnswered else { return }
    if !setup.isConnecting { session.setup = nil }
  }

  /// Calls back attempts that are still under way; their completions close the sockets.
  func abandonAttempts(_ session: inout Session, _ handle: Handle) {
    guard let setup = session.setup else { return }
    if setup.attempts.0.isInFlight {
      kernel.cancel(token(Operation.connect, handle), on: setup.attempts.0.descriptor)
    }
    if setup.attempts.1.isInFlight {
      kernel.cancel(token(Operation.connect | 1, handle), on: setup.attempts.1.descriptor)
    }
    if setup.awaitsHeader { kernel.cancel(token(Operation.header, handle), on: session.client) }
  }

  /// Bytes that go before everything the client sends: our PROXY header, then what followed the client's.
  private func preload(_ session: inout Session) {
    guard let setup = session.setup else { return }
    var bytes: [UInt8] = []
    let source = session.announced ?? session.source
    let destination = setup.destination ?? (options.needsSource ? kernel.localAddress(session.client) : nil)
    switch options.proxyProtocolOut {
    case .off: break
    case .v1: bytes = ProxyProtocol.line(source: source, destination: destination)
    case .v2: bytes = ProxyProtocol.block(source: source, destination: destination)
    }
    setup.replay = Replay(prefix: bytes, first: setup.header)
    learn(setup.header)
    bytes += setup.header
    if !bytes.isEmpty { session.up.preload(bytes) }
  }

  private func learn(_ bytes: [UInt8]) {
    guard shared.board.spokenProtocol == .unknown else { return }
    let spoken = unsafe Greeting.spoken(bytes.span.bytes)
    if spoken != .unknown { shared.board.learn(spoken) }
  }

  // MARK: Moving on

  /// Whether the connection can go to another endpoint without its client noticing: the endpoint has not sent a byte,
  /// and what the client sent can have had no effect there.
  func canMove(_ session: borrowing Session) -> Bool {
    guard session.phase == .relaying, !session.isAnswered, drainDeadline == nil, let setup = session.setup,
      let replay = setup.replay, replay.isSafe, session.up.canRetarget,
      // All of it: bytes that were spliced are in nobody's memory.
      session.up.entered == UInt64(replay.count), !session.down.isInFlight,
      !setup.isConnecting
    else { return false }
    return setup.table.pick(shared.board, tried: setup.tried) != nil
  }

  /// An endpoint that ends a silent connection after longer has its reasons, and the client gets to know.
  func isRecent(_ session: borrowing Session) -> Bool { now - session.connected < .seconds(10) }

  /// Takes the connection to another endpoint, which gets everything from the start.
  func move(_ session: inout Session, _ handle: Handle) {
    guard let replay = session.setup?.replay else { return }
    shared.counters.add(1, core: index, .moved)
    shared.board.add(1, core: index, slot: Int(session.slot), .closed)
    kernel.reset(session.endpoint)
    session.endpoint = -1
    session.slot = -1
    session.counted = (0, 0)
    session.awaitsAnswer = false
    session.down = Pump()
    session.up.retarget(replay.all, kernel)
    cancelTimer(&session)
    connect(&session, handle)
  }
}
