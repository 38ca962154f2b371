internal import Glibc
internal import Reactor

/// Clients' connections: taking them in, and the bytes that come.
extension ProxyCore {
  func acceptingPaused(_ error: SystemError) {
    shared.counters.add(.acceptPauses, core: index)
    log.warn(
      "accepting paused; new clients wait in the kernel's queue. Raise the descriptor limit or lower "
        + "--max-connections", .error(error), .int("active", Int64(clients.count)))
  }

  func acceptingEnded() { gate.close() }

  func admit(_ client: Int32, from listener: Int) {
    shared.counters.add(.accepted, core: index)
    if listener == listeners.count { return admitVisitor(client) }
    let source = options.maxConnectionsPerSource > 0 ? kernel.peerAddress(client) : nil
    if let refusal = shared.admission.refusal(source) { return refuse(client, source, refusal) }
    guard gate.enter() else { return refuseAdmitted(client, source, .draining) }
    guard takeIn(client, source, isForPages: false) else {
      gate.leave()
      return refuseAdmitted(client, source, .connections)
    }
  }

  /// Somebody wants to look inside: not counted as a client, so that this works when the proxy is full.
  private func admitVisitor(_ client: Int32) {
    guard pageVisitors < Limits.pageVisitors, gate.enter() else { return refuse(client, nil, .connections) }
    pageVisitors += 1
    guard !takeIn(client, nil, isForPages: true) else { return }
    pageVisitors -= 1
    gate.leave()
    refuse(client, nil, .connections)
  }

  private func takeIn(_ client: Int32, _ source: Address?, isForPages: Bool) -> Bool {
    var session: TLSSession?
    if let serverTLS, !isForPages || pages?.isTLS == true {
      do throws(TLSFailure) {
        session = try TLSSession(server: serverTLS)
      } catch {
        log.warn("cannot serve a client over TLS", .string("error", error.description))
        return false
      }
    }
    let transport = Transport(client, HTTP2Session(.server, clientSide), tls: session, pool)
    let connection = ClientConnection(transport, source: source, opened: now, isForPages: isForPages)
    guard let handle = clients.insert(connection) else { return false }
    kernel.setOption(client, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    _ = clients.edit(handle) { $0.transport.receive(kernel, clientToken(Operation.receive, handle)) }
    scheduleSweep()
    return true
  }

  private func refuseAdmitted(_ client: Int32, _ source: Address?, _ refusal: Admission.Refusal) {
    shared.admission.release(source)
    refuse(client, source, refusal)
  }

  /// A reset is the clearest "no" TCP has: the client's connect succeeds, and its first read fails at once.
  private func refuse(_ client: Int32, _ source: Address?, _ refusal: Admission.Refusal) {
    shared.counters.add(.refused, core: index)
    log.warn(
      "refused a client", .string("reason", refusal.rawValue),
      .string("client", source?.description ?? "unknown"))
    kernel.reset(client)
  }

  // MARK: Completions

  func completeClient(_ completion: Completion) {
    let handle = completion.token.handle
    let found: Void? = clients.edit(handle) { connection in
      switch completion.token.operation {
      case Operation.receive: clientReceived(&connection, handle, completion)
      case Operation.send:
        let poll = connection.phase == .ended ? nil : clientToken(Operation.room, handle)
        connection.transport.sendEnded(completion.result, kernel, poll: poll)
        if completion.result > 0 { connection.progressed = now }
        if connection.phase == .http1 { visitorTook(&connection, handle) }
        readClient(&connection, handle)
      default: connection.transport.roomCame()
      }
      touch(&connection, handle)
    }
    if found == nil, completion.buffer != BufferPool.none { kernel.release(completion.buffer) }
  }

  private func clientReceived(
    _ connection: inout ClientConnection, _ handle: Handle, _ completion: Completion
  ) {
    if !completion.more { connection.transport.isReceiving = false }
    if completion.result > 0, completion.buffer != BufferPool.none {
      let bytes = unsafe kernel.buffers.received(completion.buffer, Int(completion.result))
      if connection.phase != .ended { unsafe clientSent(&connection, handle, bytes) }
      kernel.release(completion.buffer)
    }
    guard !completion.more, connection.phase != .ended else { return }
    switch completion.result {
    case 1..., -EINTR, -EAGAIN: connection.transport.receive(kernel, clientToken(Operation.receive, handle))
    case -ENOBUFS: starvedClients.append(handle)
    default: clientClosed(&connection, handle)
    }
  }

  private func clientSent(
    _ connection: inout ClientConnection, _ handle: Handle, _ bytes: UnsafeRawBufferPointer
  ) {
    let (plain, state) = unsafe connection.transport.take(bytes, scratch: &scratch)
    if plain.count > 0 { unsafe clientSaid(&connection, handle, plain) }
    scratch.removeAll()
    switch state {
    case .failed(let words) where connection.phase != .closing:
      shared.counters.add(.handshakeFailures, core: index)
      log.debug("TLS with a client failed", .string("error", words))
      connection.phase = .closing
      abandonCalls(&connection, handle)
    case .closedByPeer where connection.phase != .closing: clientClosed(&connection, handle)
    default: break
    }
  }

  /// The first bytes tell HTTP/2, whose preface no HTTP/1.1 request begins with, from HTTP/1.1.
  private func clientSaid(
    _ connection: inout ClientConnection, _ handle: Handle, _ bytes: UnsafeRawBufferPointer
  ) {
    if connection.phase == .greeting {
      connection.phase =
        unsafe bytes.first == UInt8(ascii: "P") && (bytes.count < 2 || bytes[1] == UInt8(ascii: "R"))
        ? .http2 : .http1
      if connection.phase == .http1 { connection.visitor = ClientConnection.Visitor(now: now) }
    }
    switch connection.phase {
    case .http2:
      unsafe connection.transport.http2.receive(bytes)
      readClient(&connection, handle)
    case .http1: unsafe visitorSaid(&connection, handle, bytes)
    default: break
    }
  }

  /// Pulls all events out of the machine.
  func readClient(_ connection: inout ClientConnection, _ handle: Handle) {
    guard connection.phase == .http2 || connection.phase == .closing else { return }
    while let event = connection.transport.http2.next(now) {
      switch event {
      case .headers(let stream, let user, let endStream):
        if let user {
          // Trailers of a request, which gRPC does not have, would have come as such: a second head is a broken client.
          failCall(user, &connection, handle, .protocolError)
        } else {
          requestCame(&connection, handle, stream, endStream: endStream)
        }
      case .trailers(_, let user): if let user { requestEnded(user, &connection, handle) }
      case .data(let stream, let user, let bytes, let endStream):
        guard let user else {
          connection.transport.http2.credit(stream, bytes.count)
          continue
        }
        unsafe requestData(user, &connection, handle, bytes, endStream: endStream)
      case .reset(_, let user, _), .unprocessed(_, let user):
        if let user { clientCancelled(user, &connection) }
      case .writable(let stream, let user):
        if let user { clientTakes(user, &connection, handle, stream) }
      case .pong: connection.pinged = nil
      case .goAway, .settings: break
      case .failed(let code, let words):
        log.debug("a client broke HTTP/2", .string("error", "\(words)"), .string("code", "\(code)"))
        connection.phase = .closing
        abandonCalls(&connection, handle)
      }
    }
  }

  /// Nothing more comes from the client.
  private func clientClosed(_ connection: inout ClientConnection, _ handle: Handle) {
    connection.peerEnded = true
    abandonCalls(&connection, handle)
    // An HTTP/1.1 client may close its side behind its requests and wait for the pages.
    let hasOutput = connection.transport.owesOutput
    let waits = connection.visitor.map { $0.isAnswering || !$0.unread.isEmpty && hasOutput }
    if connection.phase != .http1 || waits != true { connection.phase = .closing }
    touch(&connection, handle)
  }
}
