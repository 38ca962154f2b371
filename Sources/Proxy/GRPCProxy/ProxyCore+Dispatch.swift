internal import Glibc
internal import Reactor

/// Finding a connection for a call, and connections for calls to come.
extension ProxyCore {
  /// What calls leave the endpoints in peace for when all have failed them.
  private static let retryPause = Instant.Span.milliseconds(50)

  /// Gives the call a stream to etcd, or notes that it waits for one. Nothing may be under edit.
  func dispatch(_ id: Handle) {
    var reached: (client: Handle, stream: UInt32, credit: Int)?
    var failure: String?
    _ = calls.edit(id) { call in
      guard call.phase == .waiting else { return }
      guard let endpoint = choose(&call) else {
        if !call.method.waitsForReady || call.tries > 0 && !mayWait(call) && call.own?.isPersistent != true {
          failure = unreachable
        } else {
          waiting.append(id)
          wantsRetry = true
        }
        return
      }
      guard let connection = connection(to: endpoint, for: Purpose(call.method)) else {
        waiting.append(id)
        return
      }
      reached = begin(&call, id, on: connection)
      guard reached == nil else { return }
      waiting.append(id)
      wantsRetry = true
    }
    if let failure { return failAlone(id, .unavailable, failure) }
    if reached != nil { ownBegan(id) }
    guard let reached, reached.credit > 0 else { return }
    _ = clients.edit(reached.client) { connection in
      connection.transport.http2.credit(reached.stream, reached.credit)
      touch(&connection, reached.client)
    }
  }

  /// A call that has failed on every endpoint waits for better times only as long as its client said.
  private func mayWait(_ call: borrowing Call) -> Bool {
    call.tries < Limits.triesACall && (call.deadline != .distantFuture || call.method.kind != .unary)
  }

  private var unreachable: String {
    let causes = table.endpoints.prefix(3).map { endpoint in
      "\(endpoint.name): \(routes[endpoint.slot].failures > 0 ? routes[endpoint.slot].cause.description : "not ready")"
    }
    return "etcd is not reachable: " + causes.joined(separator: "; ")
  }

  /// Opens the stream and sends what there is; nil when the connection takes no more streams.
  private func begin(
    _ call: inout Call, _ id: Handle, on handle: Handle
  ) -> (client: Handle, stream: UInt32, credit: Int)? {
    upstreams.edit(handle) { connection -> (client: Handle, stream: UInt32, credit: Int)? in
      outgoing.removeAll()
      writeRequestHead(call, connection.endpoint)
      let endsNow = call.clientEnded && call.request.isEmpty && call.inbox.isEmpty && call.own == nil
      guard let stream = connection.transport.http2.open(outgoing, endStream: endsNow, user: id) else {
        return nil
      }
      if connection.transport.http2.openStreams == 1 { connection.asked = now }
      call.phase = .open
      call.upstream = handle
      call.upstreamStream = stream
      call.requestEnded = endsNow
      call.tried.insert(connection.slot)
      call.tries = min(call.tries + 1, 254)
      if call.own != nil {
        // It speaks when the stream is open, and says all of it again.
        call.request.removeAll()
        call.clientEnded = false
      }
      readSent(call)
      let credit = push(&call, &connection)
      touch(&connection, handle)
      return (call.client, call.stream, credit)
    } ?? nil
  }

  /// The fields for etcd: ours for what names the hop, the client's for the rest, the time that is left.
  private func writeRequestHead(_ call: borrowing Call, _ endpoint: Endpoint) {
    outgoing.append(":method", "POST")
    outgoing.append(":scheme", clientTLS == nil ? "http" : "https")
    unsafe HeaderRecord.value(.path, in: call.head) { path in unsafe outgoing.append(":path", path) }
    unsafe endpoint.authority.withUnsafeBytes { unsafe outgoing.append(":authority", $0) }
    HeaderRecord.forward(call.head, to: outgoing)
    outgoing.append("te", "trailers")
    guard call.deadline != .distantFuture else { return }
    unsafe withUnsafeTemporaryAllocation(byteCount: GRPCTimeout.longest, alignment: 1) { room in
      let count = unsafe GRPCTimeout.format(call.deadline - now, into: room)
      unsafe outgoing.append("grpc-timeout", UnsafeRawBufferPointer(rebasing: room[..<count]))
    }
  }

  // MARK: Choosing

  /// The endpoint that is to have the call; nil while there is none that should be tried now.
  private func choose(_ call: inout Call) -> Endpoint? {
    if let endpoint = pick(excluding: call.tried) { return endpoint }
    guard call.tries > 0 else { return nil }
    // All have had it: from the beginning, once more at once (a connection that broke is not yet an endpoint that is
    // gone, and with a single endpoint there is no other), then after a pause as long as its client waits.
    call.tried = EndpointSet()
    return Int(call.tries) < 2 * table.endpoints.count ? pick(excluding: call.tried) : nil
  }

  private func pick(excluding tried: EndpointSet) -> Endpoint? {
    switch options.balance {
    case .sticky: return stickyChoice(tried)
    case .roundRobin, .weighted:
      var skipped = tried
      while let endpoint = table.pick(shared.board, tried: skipped) {
        if routes[endpoint.slot].retryAt <= now { return endpoint }
        skipped.insert(endpoint.slot)
      }
      return nil
    case .leastLatency:
      return candidates(tried).min { routes[$0.slot].latency < routes[$1.slot].latency }
    }
  }

  /// Endpoints of the best status there is that may be tried now.
  private func candidates(_ tried: EndpointSet) -> [Endpoint] {
    for status in EndpointBoard.Status.allCases {
      let found = table.endpoints.filter {
        shared.board.status($0.slot) == status && !tried.contains($0.slot) && routes[$0.slot].retryAt <= now
      }
      guard let best = found.map(\.priority).min() else { continue }
      return found.filter { $0.priority == best }
    }
    return []
  }

  /// One endpoint, chosen at random, for the whole process, for as long as it is well.
  private func stickyChoice(_ tried: EndpointSet) -> Endpoint? {
    let current = shared.sticky.load(ordering: .relaxed)
    if current >= 0, shared.board.status(current) == .up, !tried.contains(current),
      routes[current].retryAt <= now, let endpoint = table.endpoints.first(where: { $0.slot == current })
    {
      return endpoint
    }
    guard let endpoint = candidates(tried).randomElement(using: &random) else { return nil }
    // A call that was refused there leaves the choice as it is: health is not decided by one answer.
    let isThere = current >= 0 && table.endpoints.contains { $0.slot == current }
    if !isThere || shared.board.status(current) != .up || routes[current].retryAt > now {
      shared.sticky.store(endpoint.slot, ordering: .relaxed)
    }
    return endpoint
  }

  // MARK: Connections

  /// A connection that takes a stream now. If there is none, one is on its way when this returns nil.
  private func connection(to endpoint: Endpoint, for purpose: Purpose) -> Handle? {
    let existing = routes[endpoint.slot].connections[purpose.rawValue]
    var isComing = false
    for handle in existing {
      let state: (takes: Bool, comes: Bool)? = upstreams.edit(handle) { connection in
        let comes = connection.phase == .connecting || connection.phase == .greeting
        let takes = connection.phase == .ready && connection.transport.http2.canOpen
        connection.isFull = connection.phase == .ready && !takes
        return (takes, comes)
      }
      if state?.takes == true { return handle }
      isComing = isComing || state?.comes == true
    }
    if !isComing, existing.count < Limits.connectionsAnEndpoint { connect(endpoint, purpose, address: 0) }
    return nil
  }

  func connect(_ endpoint: Endpoint, _ purpose: Purpose, address: Int) {
    let target = endpoint.addresses[address]
    let descriptor = kernel.socket(family: target.family)
    guard descriptor >= 0 else { return connectFailed(endpoint, SystemError(code: -descriptor)) }
    var session: TLSSession?
    if let clientTLS {
      do throws(TLSFailure) {
        session = try TLSSession(client: clientTLS, serverName: endpoint.serverName)
      } catch {
        log.warn(
          "cannot use TLS to an endpoint", .string("address", endpoint.name),
          .string("error", error.description))
        kernel.close(descriptor)
        return connectFailed(endpoint, SystemError(code: EPROTO))
      }
    }
    kernel.setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    let transport = Transport(descriptor, HTTP2Session(.client, upstreamSide), tls: session, pool)
    let connection = UpstreamConnection(
      transport, slot: endpoint.slot, purpose: purpose, endpoint: endpoint, address: address, now: now)
    guard let handle = upstreams.insert(connection) else {
      kernel.close(descriptor)
      return connectFailed(endpoint, SystemError(code: ENFILE))
    }
    routes.add(handle, slot: endpoint.slot, purpose)
    kernel.connect(descriptor, to: target, upstreamToken(Operation.connect, handle))
    scheduleSweep()
  }

  func connectFailed(_ endpoint: Endpoint, _ error: SystemError) {
    // What becomes of an endpoint that is none any more says nothing of the one that has its slot now.
    guard isInTable(endpoint) else { return }
    routes[endpoint.slot].cause = error
    routes.failed(endpoint.slot, now: now, &random)
    shared.counters.add(.connectFailures, core: index)
    if shared.board.set(endpoint.slot, .down) {
      log.warn("endpoint is not reachable", .string("address", endpoint.name), .error(error))
    }
    wantsRetry = true
  }

  func isInTable(_ endpoint: Endpoint) -> Bool { table.endpoints.contains { $0.isSamePlace(as: endpoint) } }

  /// Looks at the calls that wait: something has changed, or it is time to try an endpoint again.
  func startWaiting() {
    starting.append(contentsOf: waiting)
    waiting.removeAll(keepingCapacity: true)
  }

  /// The same when streams have ended on a connection that had none left.
  func startForFreedStreams() {
    guard !waiting.isEmpty else { return }
    var isFreed = false
    for handle in touchedUpstreams {
      _ = upstreams.edit(handle) { connection in
        guard connection.isFull, connection.transport.http2.canOpen else { return }
        connection.isFull = false
        isFreed = true
      }
    }
    if isFreed { startWaiting() }
  }

  /// Wakes those who wait when the first endpoint may be tried again. One that may be tried already has had all
  /// of them, and gets a moment.
  func scheduleRetry() {
    let soon = now + Self.retryPause
    let times = table.endpoints.map { routes[$0.slot].retryAt }
    let due = times.map { $0 > now ? $0 : soon }.min() ?? soon
    // Calls that keep coming do not put it off.
    guard due < retryDue else { return }
    timers.cancel(retryTimer)
    retryDue = due
    retryTimer = timers.schedule(
      at: due, Token(owner: Owner.core, operation: CoreTimer.retry, handle: Handle(slot: 0, generation: 0)))
  }
}
