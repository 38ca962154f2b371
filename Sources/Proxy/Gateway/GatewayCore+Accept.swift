internal import Glibc
internal import Reactor

/// Taking clients in, or refusing them.
extension GatewayCore: Acceptor.Host {
  func acceptingPaused(_ error: SystemError) {
    shared.counters.add(1, core: index, .acceptPauses)
    log.warn(
      "accepting paused; new clients wait in the kernel's queue. Raise the descriptor limit or lower "
        + "--max-connections", .error(error), .int("active", Int64(sessions.count)))
  }

  /// Until then whoever got through is served.
  func acceptingEnded() { gate.close() }

  func admit(_ client: Int32, from listener: Int) {
    shared.counters.add(1, core: index, .accepted)
    let source = options.needsSource ? kernel.peerAddress(client) : nil
    if let refusal = shared.admission.refusal(source) {
      return refuse(client, source, refusal)
    }
    guard gate.enter() else { return refuseAdmitted(client, source, .draining) }
    guard let handle = sessions.insert(Session(client: client, table: table, now: now)) else {
      gate.leave()
      return refuseAdmitted(client, source, .connections)
    }
    _ = sessions.edit(handle) { session in
      session.source = source
      if options.proxyProtocolIn == .on { awaitHeader(&session, handle) } else { connect(&session, handle) }
      touch(&session, handle)
    }
    scheduleSweep()
  }

  private func refuseAdmitted(_ client: Int32, _ source: Address?, _ refusal: Admission.Refusal) {
    shared.admission.release(source)
    refuse(client, source, refusal)
  }

  /// A reset is the clearest "no" TCP has: the client's connect succeeds, and its first read fails at once.
  private func refuse(_ client: Int32, _ source: Address?, _ refusal: Admission.Refusal) {
    shared.counters.add(1, core: index, .refused)
    log.warn(
      "refused a client", .string("reason", refusal.rawValue),
      .string("client", source?.description ?? "unknown"))
    kernel.reset(client)
  }

  // MARK: PROXY protocol

  private func awaitHeader(_ session: inout Session, _ handle: Handle) {
    session.phase = .header
    session.setup?.awaitsHeader = true
    session.timer = timers.schedule(
      at: now + .milliseconds(Limits.proxyHeaderMilliseconds), token(Operation.timer, handle))
    kernel.poll(session.client, for: .readable, token(Operation.header, handle))
  }

  /// The client sent something, and its PROXY header is not complete yet.
  func headerReadable(_ session: inout Session, _ handle: Handle, _ result: Int32) {
    guard let setup = session.setup else { return }
    setup.awaitsHeader = false
    guard session.phase == .header else { return }
    var room = [UInt8](repeating: 0, count: Limits.proxyHeaderBytes + 1 - setup.header.count)
    let count = unsafe room.withUnsafeMutableBytes { unsafe kernel.read(session.client, into: $0) }
    if count > 0 { setup.header.append(contentsOf: room[..<count]) }
    let header = setup.header
    switch unsafe ProxyProtocol.parse(header.span.bytes) {
    case .header(let source, let destination, let length):
      headerCame(&session, handle, setup, source, destination, length)
    case .needMore where count > 0 || count == -Int(EAGAIN):
      setup.awaitsHeader = true
      kernel.poll(session.client, for: .readable, token(Operation.header, handle))
    case .needMore, .invalid: end(&session, handle, .badHeader)
    }
  }

  private func headerCame(
    _ session: inout Session, _ handle: Handle, _ setup: Session.Setup, _ source: Address?,
    _ destination: Address?, _ length: Int
  ) {
    if let source { session.announced = source }
    setup.destination = destination
    let rest = Array(setup.header[length...])
    setup.header = rest
    cancelTimer(&session)
    connect(&session, handle)
  }
}
