internal import Glibc
internal import Reactor

/// A listening socket as one core uses it.
struct Listener {
  let descriptor: Int32
  /// The kernel has an accept for it.
  var isAccepting = false
}

/// Taking clients in, or refusing them.
extension GatewayCore {
  private static let acceptPauseMilliseconds: UInt64 = 100

  func startListeners() {
    for index in listeners.indices where !listeners[index].isAccepting {
      listeners[index].isAccepting = true
      kernel.accept(listeners[index].descriptor, listenerToken(index))
    }
  }

  private func listenerToken(_ index: Int) -> Token {
    Token(owner: Owner.listener, operation: 0, handle: Handle(slot: UInt32(index), generation: 0))
  }

  func completeAccept(_ completion: Completion) {
    let index = Int(completion.token.handle.slot)
    if completion.result >= 0 { admit(completion.result) }
    guard !completion.more, index < listeners.count else { return }
    listeners[index].isAccepting = false
    if drainDeadline != nil { return closeListener(index) }
    switch completion.result {
    case 0..., -ECONNABORTED, -EINTR, -EPROTO, -EAGAIN:
      // An accept that ended together with a good one, or a connection that died in the queue: go on.
      startListeners()
    case -ECANCELED where acceptPause != .none: break
    case -ECANCELED: startListeners()
    default: pauseAccepting(SystemError(code: -completion.result))
    }
  }

  /// Out of descriptors: clients wait in the kernel's queue until a connection ends or a moment has passed, instead of
  /// the process ending (as etcd's gateway does) or spinning on the error.
  func pauseAccepting(_ error: SystemError) {
    guard acceptPause == .none, drainDeadline == nil else { return }
    shared.counters.add(1, core: index, .acceptPauses)
    log.warn(
      "accepting paused; new clients wait in the kernel's queue. Raise the descriptor limit or lower "
        + "--max-connections", .error(error), .int("active", Int64(sessions.count)))
    for index in listeners.indices where listeners[index].isAccepting {
      kernel.cancel(listenerToken(index), on: listeners[index].descriptor)
    }
    schedulePause()
  }

  /// The pause is over, or a descriptor came free.
  func resumeAccepting() {
    guard acceptPause != .none else { return }
    timers.cancel(acceptPause)
    acceptPause = .none
    guard drainDeadline == nil else { return }
    let isEnough = takeOneByOne()
    // One of those just taken may have found no descriptor, which has paused accepting again.
    guard acceptPause == .none else { return }
    if isEnough { startListeners() } else { schedulePause() }
  }

  /// Takes clients from the queue as long as there is a descriptor for their endpoint too; false when there is not.
  ///
  /// The kernel's own accept would go on to the last descriptor, and then nobody could be connected.
  private func takeOneByOne() -> Bool {
    for listener in listeners where !listener.isAccepting {
      while true {
        let spare = kernel.socket(family: AF_INET)
        guard spare >= 0 else { return false }
        let client = kernel.acceptNow(listener.descriptor)
        kernel.close(spare)
        if client == -EMFILE || client == -ENFILE { return false }
        guard client >= 0 else { break }
        admit(client)
      }
    }
    return true
  }

  private func schedulePause() {
    acceptPause = timers.schedule(
      at: now + .milliseconds(Self.acceptPauseMilliseconds),
      Token(owner: Owner.listener, operation: 1, handle: Handle(slot: 0, generation: 0)))
  }

  func admit(_ client: Int32) {
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

  func closeListener(_ index: Int) {
    guard listeners[index].descriptor >= 0 else { return }
    kernel.close(listeners[index].descriptor)
    listeners[index] = Listener(descriptor: -1)
    closeGateWhenDeaf()
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
