internal import Glibc
internal import Reactor

/// How sessions end, one by one and all together.
extension GatewayCore {
  private static let sweepSeconds: UInt64 = 5
  /// A drained connection that is not waiting for an answer and has been quiet this long is closed at once.
  private static let quietMilliseconds: UInt64 = 500

  /// Looks at what the directions have come to, once nothing more can be done without another event.
  func noticeEnd(_ session: inout Session, _ handle: Handle) {
    switch (session.up.outcome, session.down.outcome) {
    // Our own want of memory: both peers are well, and neither would ever hear of it.
    case (.destinationBroke(ENOMEM), _), (_, .destinationBroke(ENOMEM)), (.destinationBroke(ENOBUFS), _),
      (_, .destinationBroke(ENOBUFS)):
      end(&session, handle, .noDescriptor)
    case (.sourceBroke, _): end(&session, handle, .clientBroke)
    case (_, .sourceBroke): end(&session, handle, .endpointBroke)
    case (.open, _), (_, .open): return
    case (.destinationBroke, _): end(&session, handle, .endpointBroke)
    case (_, .destinationBroke): end(&session, handle, .clientBroke)
    case (.ended, .ended): end(&session, handle, .finished)
    }
    drive(&session, handle)
  }

  /// Ends the session for `reason`; it is removed once the kernel has let go of everything.
  func end(_ session: inout Session, _ handle: Handle, _ reason: Session.Reason) {
    guard session.phase != .ending else { return }
    session.phase = .ending
    session.reason = reason
    cancelTimer(&session)
    abandonAttempts(&session, handle)
    session.losesBytes = (session.up.hasBytes, session.down.hasBytes)
    session.up.stop(kernel)
    session.down.stop(kernel)
  }

  func cancelTimer(_ session: inout Session) {
    timers.cancel(session.timer)
    session.timer = .none
  }

  /// Frees what an ended session still has, and tells of it.
  func remove(_ handle: Handle) {
    guard var session = sessions.remove(handle) else { return }
    returnPipe(&session.up)
    returnPipe(&session.down)
    let orderly = session.reason == .idle || session.reason == .drained
    closeSocket(
      session.client, orderly: orderly && !session.losesBytes.down || session.down.outcome == .ended)
    if session.endpoint >= 0 {
      closeSocket(
        session.endpoint, orderly: orderly && !session.losesBytes.up || session.up.outcome == .ended)
      shared.board.add(1, core: index, slot: Int(session.slot), .closed)
    }
    shared.counters.add(1, core: index, .closed)
    shared.counters.add(1, core: index, .ended(session.reason))
    shared.admission.release(session.source)
    report(session)
    gate.leave()
    if !waiting.isEmpty { serveWaiting() }
    if waiting.isEmpty { acceptor.resume() }
  }

  /// A stream that was cut is reset, so that nobody takes the cut for its end.
  private func closeSocket(_ descriptor: Int32, orderly: Bool) {
    if orderly { kernel.close(descriptor) } else { kernel.reset(descriptor) }
  }

  private func report(_ session: borrowing Session) {
    if session.reason == .noDescriptor {
      log.warn("dropped a client", .string("reason", session.reason.rawValue))
    }
    guard options.accessLog else { return }
    let endpoint = shared.endpoints.names.name(of: Int(session.slot))
    log.info(
      "connection", .string("client", (session.announced ?? session.source)?.description ?? "unknown"),
      .string("endpoint", endpoint), .uint("bytes-up", session.up.moved),
      .uint("bytes-down", session.down.moved),
      .duration("duration", nanoseconds: Int64(clamping: (now - session.accepted).nanoseconds)),
      .duration(
        "connect", nanoseconds: Int64(clamping: (session.connected - session.accepted).nanoseconds)),
      .string("end", session.reason.rawValue))
  }

  // MARK: All together

  /// The endpoint stopped answering: its connections would hang for ever, so they end, and clients go elsewhere.
  func endSessions(of slot: Int) {
    sessions.forEach { handle, session in
      guard Int(session.slot) == slot, session.phase == .relaying else { return }
      if !session.isAnswered, session.setup?.replay?.isSafe == true {
        // Nothing has come back yet: it leaves for another endpoint once the kernel has let go of this one.
        session.isLeaving = true
        session.down.stop(kernel)
      } else {
        end(&session, handle, .endpointHung)
      }
      touch(&session, handle)
    }
  }

  /// Stops accepting, and lets connections finish until the deadline.
  func startDraining(until deadline: Instant) {
    guard drainDeadline == nil else { return }
    acceptor.drain()
    drainDeadline = deadline
    sweep()
  }

  func stopAtOnce() {
    startDraining(until: now)
    drainDeadline = now
    sweep()
  }

  func scheduleSweep() {
    guard sweepTimer == .none else { return }
    let pause = drainDeadline == nil ? Instant.Span.seconds(Self.sweepSeconds) : .milliseconds(100)
    sweepTimer = timers.schedule(
      at: now + pause, Token(owner: Owner.core, operation: 0, handle: Handle(slot: 0, generation: 0)))
  }

  /// Every few seconds, while there are connections: keepalive for those that last, and the drain's deadline.
  func sweep() {
    timers.cancel(sweepTimer)
    sweepTimer = .none
    sessions.forEach { handle, session in
      keepAlive(&session)
      guard let deadline = drainDeadline, session.phase != .ending else { return }
      let quiet = now - session.lastActive >= .milliseconds(Self.quietMilliseconds)
      let waits = session.awaitsAnswer || session.up.hasBytes || session.down.hasBytes
      let idle = session.phase == .relaying && quiet && !waits
      if idle || now >= deadline {
        end(&session, handle, .drained)
        touch(&session, handle)
      }
    }
    if sessions.count > 0 { scheduleSweep() }
  }

  private func keepAlive(_ session: inout Session) {
    guard !session.isKeptAlive, session.phase == .relaying else { return }
    session.isKeptAlive = true
    kernel.setKeepalive(
      session.endpoint, after: options.tcpKeepalive.span, giveUp: options.tcpUserTimeout.span)
  }

  func idleTimerFired(_ session: inout Session, _ handle: Handle) {
    let due = session.lastActive + options.idleTimeout.span
    guard due <= now else {
      session.timer = timers.schedule(at: due, token(Operation.timer, handle))
      return
    }
    end(&session, handle, .idle)
  }
}
