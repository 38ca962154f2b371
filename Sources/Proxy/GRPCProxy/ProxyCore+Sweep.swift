internal import Glibc
internal import Reactor
internal import Synchronization

/// What is looked at now and then rather than timed: silent peers, slow greetings, the end of a drain.
extension ProxyCore {
  private static let pause = Instant.Span.seconds(1)
  private static let drainingPause = Instant.Span.milliseconds(100)
  /// etcd answers a PING at most this often without taking it for abuse.
  private static let pingPause = Instant.Span.seconds(10)
  /// A call without an answer for so long is reason to ask whether the endpoint lives.
  private static let suspicion = Instant.Span.seconds(5)

  func scheduleSweep() {
    guard sweepTimer == .none || drainDeadline != nil else { return }
    timers.cancel(sweepTimer)
    sweepTimer = timers.schedule(
      at: now + (drainDeadline == nil ? Self.pause : Self.drainingPause),
      Token(owner: Owner.core, operation: CoreTimer.sweep, handle: Handle(slot: 0, generation: 0)))
  }

  func sweep() {
    timers.cancel(sweepTimer)
    sweepTimer = .none
    drainClients()
    sweepCache()
    clients.forEach { handle, connection in look(&connection, handle) }
    upstreams.forEach { handle, connection in look(&connection, handle) }
    shared.freed.add(pool.trim() + reads.cache.pool.trim(), ordering: .relaxed)
    if clients.count > 0 || upstreams.count > 0 || drainDeadline != nil { scheduleSweep() }
  }

  private func look(_ connection: inout ClientConnection, _ handle: Handle) {
    if connection.transport.isBroken { return endClient(&connection, handle) }
    switch connection.phase {
    case .greeting where now - connection.opened >= Limits.greetingTime:
      // Half a TLS handshake, or a connection that never says anything: it holds a descriptor that others need.
      shared.counters.add(.handshakeFailures, core: index)
      endClient(&connection, handle)
    case .closing where connection.transport.awaitsRoom:
      if now - connection.progressed >= Limits.greetingTime { endClient(&connection, handle) }
    case .http1: lookAtVisitor(&connection, handle)
    case .http2 where !connection.transport.http2.peerSettingsSeen:
      // The beginning of a preface, and then nothing: HTTP/2 has not begun.
      guard now - connection.opened >= Limits.greetingTime else { return }
      shared.counters.add(.handshakeFailures, core: index)
      endClient(&connection, handle)
    case .http2:
      if let pinged = connection.pinged, pinged > connection.transport.http2.lastReceived {
        if now - pinged >= options.clientPingTimeout.span { endClient(&connection, handle) }
      } else if now - max(connection.transport.http2.lastReceived, connection.opened)
        >= options.clientPingInterval.span
      {
        connection.pinged = now
        connection.transport.http2.ping(now.nanoseconds)
        touch(&connection, handle)
      }
    default: break
    }
  }

  /// A request that comes too slowly, a page that is not read, and a connection that is only kept.
  private func lookAtVisitor(_ connection: inout ClientConnection, _ handle: Handle) {
    guard let visitor = connection.visitor else { return }
    if connection.transport.owesOutput {
      if now - connection.progressed >= Limits.visitorIdleTime { endClient(&connection, handle) }
    } else if !visitor.isAnswering {
      let limit = visitor.unread.isEmpty ? Limits.visitorIdleTime : Limits.greetingTime
      if now - visitor.idleSince >= limit { endClient(&connection, handle) }
    }
  }

  private func look(_ connection: inout UpstreamConnection, _ handle: Handle) {
    if connection.transport.isBroken { return endUpstream(&connection, handle, SystemError(code: EPROTO)) }
    switch connection.phase {
    case .connecting, .greeting:
      if now - connection.since >= options.upstreamTimeout.span {
        endUpstream(&connection, handle, SystemError(code: ETIMEDOUT))
      }
    case .ready, .draining:
      if connection.phase == .draining, connection.transport.http2.openStreams == 0 {
        return endUpstream(&connection, handle, SystemError(code: 0))
      }
      askWhetherItLives(&connection, handle)
    case .ended: break
    }
  }

  /// An endpoint that is silent although calls wait for it is asked; one that does not answer has its calls taken away.
  private func askWhetherItLives(_ connection: inout UpstreamConnection, _ handle: Handle) {
    // Whatever comes is a sign of life: the answer to the ping may stand behind a large answer to a call.
    if let pinged = connection.pinged, pinged > connection.transport.http2.lastReceived {
      if now - pinged >= options.upstreamPingTimeout.span {
        log.warn("an endpoint does not answer", .string("address", connection.endpoint.name))
        endUpstream(&connection, handle, SystemError(code: ETIMEDOUT))
      }
      return
    }
    guard connection.transport.http2.openStreams > 0 || options.permitWithoutStream else { return }
    let quiet = now - max(connection.asked, connection.transport.http2.lastReceived)
    guard quiet >= options.upstreamPingInterval?.span ?? Self.suspicion,
      now - connection.lastPing >= options.upstreamPingInterval?.span ?? Self.pingPause
    else { return }
    connection.pinged = now
    connection.lastPing = now
    connection.transport.http2.ping(now.nanoseconds)
    touch(&connection, handle)
  }
}
