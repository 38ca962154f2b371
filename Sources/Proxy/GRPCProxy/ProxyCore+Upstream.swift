internal import Glibc
internal import Reactor

/// Connections to etcd: how they come up, what they bring, how they end.
extension ProxyCore {
  func completeUpstream(_ completion: Completion) {
    let handle = completion.token.handle
    let found: Void? = upstreams.edit(handle) { connection in
      switch completion.token.operation {
      case Operation.connect: connected(&connection, handle, completion.result)
      case Operation.receive: upstreamReceived(&connection, handle, completion)
      case Operation.send:
        let poll = connection.phase == .ended ? nil : upstreamToken(Operation.room, handle)
        connection.transport.sendEnded(completion.result, kernel, poll: poll)
        if connection.transport.isBroken {
          endUpstream(&connection, handle, SystemError(code: -completion.result))
        } else {
          readUpstream(&connection, handle)
        }
      default: connection.transport.roomCame()
      }
      touch(&connection, handle)
    }
    if found == nil, completion.buffer != BufferPool.none { kernel.release(completion.buffer) }
  }

  private func connected(_ connection: inout UpstreamConnection, _ handle: Handle, _ result: Int32) {
    connection.isConnecting = false
    guard connection.phase == .connecting else { return }
    guard result >= 0 else {
      let endpoint = connection.endpoint
      let next = connection.address + 1
      connection.phase = .ended
      routes.remove(handle, slot: connection.slot, connection.purpose)
      if next < endpoint.addresses.count {
        nextAddresses.append(NextAddress(endpoint: endpoint, purpose: connection.purpose, address: next))
      } else {
        connectFailed(endpoint, SystemError(code: -result))
        startWaiting()
      }
      return
    }
    connection.phase = .greeting
    kernel.setKeepalive(connection.transport.descriptor, after: .seconds(15), giveUp: .zero)
    if let tls = connection.transport.tls { tls.start(out: &connection.transport.cipher) }
    connection.transport.receive(kernel, upstreamToken(Operation.receive, handle))
  }

  private func upstreamReceived(
    _ connection: inout UpstreamConnection, _ handle: Handle, _ completion: Completion
  ) {
    if !completion.more { connection.transport.isReceiving = false }
    if completion.result > 0, completion.buffer != BufferPool.none {
      let bytes = unsafe kernel.buffers.received(completion.buffer, Int(completion.result))
      if connection.phase != .ended { unsafe upstreamSent(&connection, handle, bytes) }
      kernel.release(completion.buffer)
      if connection.purpose == .heartbeats, connection.phase == .ready, heartbeats.awaited > 1 {
        rest(&connection, handle)
      }
    }
    guard !completion.more, connection.phase != .ended else { return }
    switch completion.result {
    case _ where connection.isResting && completion.result > 0, -ECANCELED where connection.isResting: break
    case 1..., -EINTR, -EAGAIN, -ECANCELED:
      connection.transport.receive(kernel, upstreamToken(Operation.receive, handle))
    case -ENOBUFS: starvedUpstreams.append(handle)
    default:
      endUpstream(
        &connection, handle, SystemError(code: completion.result < 0 ? -completion.result : ECONNRESET))
    }
  }

  /// More answers are to come: they are taken together, in a moment.
  private func rest(_ connection: inout UpstreamConnection, _ handle: Handle) {
    guard !connection.isResting else { return }
    connection.isResting = true
    if connection.transport.isReceiving {
      kernel.cancel(upstreamToken(Operation.receive, handle), on: connection.transport.descriptor)
    }
    if resting.isEmpty {
      _ = timers.schedule(
        at: now + Limits.heartbeatGather,
        Token(owner: Owner.core, operation: CoreTimer.rest, handle: Handle(slot: 0, generation: 0)))
    }
    resting.append(handle)
  }

  func endRest() {
    for handle in resting {
      _ = upstreams.edit(handle) { connection in
        connection.isResting = false
        guard connection.phase != .ended else { return }
        connection.transport.receive(kernel, upstreamToken(Operation.receive, handle))
      }
    }
    resting.removeAll(keepingCapacity: true)
  }

  private func upstreamSent(
    _ connection: inout UpstreamConnection, _ handle: Handle, _ bytes: UnsafeRawBufferPointer
  ) {
    let (plain, state) = unsafe connection.transport.take(bytes, scratch: &scratch)
    if plain.count > 0 {
      unsafe connection.transport.http2.receive(plain)
      readUpstream(&connection, handle)
    }
    scratch.removeAll()
    switch state {
    case .failed(let words):
      log.warn(
        "TLS with an endpoint failed", .string("address", connection.endpoint.name), .string("error", words))
      endUpstream(&connection, handle, SystemError(code: EPROTO))
    case .closedByPeer: endUpstream(&connection, handle, SystemError(code: ECONNRESET))
    default: break
    }
  }

  private func readUpstream(_ connection: inout UpstreamConnection, _ handle: Handle) {
    guard connection.phase != .ended else { return }
    while let event = connection.transport.http2.next(now) {
      switch event {
      case .headers(_, let user, let endStream):
        guard let user else { continue }
        if endStream { answerEnded(user, &connection, isHead: true) } else { answerBegan(user, &connection) }
      case .trailers(_, let user): if let user { answerEnded(user, &connection, isHead: false) }
      case .data(let stream, let user, let bytes, let endStream):
        guard let user else {
          connection.transport.http2.credit(stream, bytes.count)
          continue
        }
        unsafe answerData(user, &connection, stream, bytes, endStream: endStream)
      case .reset(_, let user, let code): if let user { upstreamReset(user, &connection, code) }
      case .unprocessed(_, let user): if let user { lost(user, certainlyUnseen: true, refusedByPeer) }
      case .writable(_, let user): if let user { upstreamTakes(user, &connection) }
      case .settings: settingsCame(&connection)
      case .pong: connection.pinged = nil
      case .goAway(_, let code): goingAway(&connection, handle, code)
      case .failed(let code, let words):
        log.warn(
          "an endpoint broke HTTP/2", .string("address", connection.endpoint.name),
          .string("error", "\(words)"),
          .string("code", "\(code)"))
        return endUpstream(&connection, handle, SystemError(code: EPROTO))
      }
    }
  }

  private var refusedByPeer: String { "etcd did not take the call" }

  /// The endpoint has answered our greeting: it is a living HTTP/2 server.
  private func settingsCame(_ connection: inout UpstreamConnection) {
    guard connection.phase == .greeting else { return startWaiting() }
    connection.phase = .ready
    connection.since = now
    routes.succeeded(connection.slot)
    shared.counters.add(.connects, core: index)
    // That it is sick only it can take back, to the prober.
    if shared.board.status(connection.slot) == .down, shared.board.set(connection.slot, .up) {
      log.info("endpoint is reachable", .string("address", connection.endpoint.name))
    }
    startWaiting()
  }

  /// The endpoint takes no new calls here: the next one gets a new connection.
  private func goingAway(_ connection: inout UpstreamConnection, _ handle: Handle, _ code: HTTP2Code) {
    if code != .noError {
      log.warn(
        "an endpoint sent GOAWAY", .string("address", connection.endpoint.name), .string("code", "\(code)"))
    }
    guard connection.phase == .ready || connection.phase == .greeting else { return }
    // One that sends everybody away at once is not asked again at once.
    if !connection.transport.http2.hasOpened { routes.failed(connection.slot, now: now, &random) }
    connection.phase = .draining
    routes.remove(handle, slot: connection.slot, connection.purpose)
    startWaiting()
  }

  // MARK: Ends

  /// Ends a connection; its calls begin anew elsewhere if they may, and fail otherwise.
  func endUpstream(_ connection: inout UpstreamConnection, _ handle: Handle, _ error: SystemError) {
    guard connection.phase != .ended else { return }
    let wasUp = connection.phase == .ready || connection.phase == .draining
    connection.phase = .ended
    connection.cause = error
    routes.remove(handle, slot: connection.slot, connection.purpose)
    connection.transport.cancel(
      kernel, receive: upstreamToken(Operation.receive, handle), poll: upstreamToken(Operation.room, handle))
    if connection.isConnecting {
      kernel.cancel(upstreamToken(Operation.connect, handle), on: connection.transport.descriptor)
    }
    let reason = "connection to etcd (\(connection.endpoint.name)) was lost: \(error)"
    connection.transport.http2.forEachUser { user in lost(user, certainlyUnseen: !wasUp, reason) }
    // Given up by ourselves it says nothing of the endpoint.
    if !wasUp, error.code != ECANCELED { connectFailed(connection.endpoint, error) }
    touch(&connection, handle)
    startWaiting()
  }

  func removeUpstream(_ handle: Handle) {
    guard let connection = upstreams.remove(handle) else { return }
    shared.counters.addBytes(up: connection.transport.sent, down: connection.transport.received, core: index)
    kernel.close(connection.transport.descriptor)
    acceptor.resume()
  }

  /// The prober has found the endpoint stopped: whatever is on its connections would wait for ever. One on which
  /// something has come since the prober asked is as well as can be.
  func endpointHung(_ slot: Int) {
    upstreams.forEach { handle, connection in
      let isSilent = now - connection.transport.http2.lastReceived >= options.healthTimeout.span
      if connection.slot == slot, isSilent { endUpstream(&connection, handle, SystemError(code: ETIMEDOUT)) }
    }
  }

  /// Connections to places that are no endpoints any more end with their last call.
  func tableChanged(_ newer: EndpointTable) {
    let gone = table.endpoints.filter { old in !newer.endpoints.contains { $0.isSamePlace(as: old) } }
    table = newer
    for endpoint in gone {
      for purpose in Purpose.allCases {
        for handle in routes[endpoint.slot].connections[purpose.rawValue] {
          _ = upstreams.edit(handle) { connection in
            if connection.phase == .ready {
              connection.phase = .draining
            } else {
              endUpstream(&connection, handle, SystemError(code: ECANCELED))
            }
            touch(&connection, handle)
          }
          routes.remove(handle, slot: endpoint.slot, purpose)
        }
      }
      // Whoever gets the slot next begins without a past.
      routes.succeeded(endpoint.slot)
    }
    startWaiting()
  }
}
