internal import Glibc
internal import Reactor

/// How calls and clients' connections end, one by one and all together.
extension ProxyCore {
  // MARK: Calls

  /// The client's end is in hand: ends the call with a status, and lets go of etcd's side.
  func failCall(
    _ id: Handle, _ connection: inout ClientConnection, _ handle: Handle, _ code: GRPCStatus.Code,
    _ text: String
  ) {
    _ = calls.edit(id) { call in
      dropUpstream(&call, .cancel)
      writeStatus(&call, &connection, code, text)
    }
    touch(&connection, handle)
    forget(id, &connection)
  }

  /// The client broke the protocol on this stream.
  func failCall(
    _ id: Handle, _ connection: inout ClientConnection, _ handle: Handle, _ code: HTTP2Code
  ) {
    _ = calls.edit(id) { call in
      dropUpstream(&call, .cancel)
      connection.transport.http2.reset(call.stream, code)
      count(call, .internal)
    }
    touch(&connection, handle)
    forget(id, &connection)
  }

  /// etcd's side is done with the call: ends it with a status.
  func failAlone(_ id: Handle, _ code: GRPCStatus.Code, _ text: String) {
    if let own = own(id) {
      _ = calls.edit(id) { $0.upstream = nil }
      return ownEnded(id, own, code, Array(text.utf8))
    }
    _ = calls.edit(id) { call in
      call.upstream = nil
      _ = clients.edit(call.client) { connection in
        writeStatus(&call, &connection, code, text)
        touch(&connection, call.client)
      }
    }
    forgetAlone(id)
  }

  /// A call that never became one.
  func refuseCall(
    _ connection: inout ClientConnection, _ stream: UInt32, _ method: EtcdMethod, _ code: GRPCStatus.Code,
    _ text: String
  ) {
    GRPCStatus.write(code, text, to: outgoing, isHead: true, pool)
    connection.transport.http2.sendHeaders(stream, outgoing, endStream: true)
    connection.transport.http2.reset(stream, .noError)
    shared.counters.handled(method, code, after: .zero, core: index)
  }

  private func writeStatus(
    _ call: inout Call, _ connection: inout ClientConnection, _ code: GRPCStatus.Code, _ text: String
  ) {
    GRPCStatus.write(code, text, to: outgoing, isHead: !call.headSent, pool)
    connection.transport.http2.sendHeaders(call.stream, outgoing, endStream: true)
    // What has not left by now never will; the reset also ends a client's half that is still open.
    connection.transport.http2.reset(call.stream, .noError)
    guard !call.isPage else { return }
    count(call, code)
    shared.counters.failed(code, core: index)
  }

  /// Counts the end of a call, once: one whose answer still waits for its client has been counted when etcd
  /// ended it, and pages are no calls.
  func count(_ call: borrowing Call, _ code: GRPCStatus.Code) {
    guard call.phase != .finishing else { return }
    shared.counters.handled(call.method, code, after: now - call.started, core: index)
  }

  /// Tells etcd that nobody waits for the answer.
  func dropUpstream(_ call: inout Call, _ code: HTTP2Code) {
    guard let upstream = call.upstream else { return }
    call.upstream = nil
    _ = upstreams.edit(upstream) { connection in
      connection.transport.http2.reset(call.upstreamStream, code)
      touch(&connection, upstream)
    }
  }

  /// Removes a call that has ended on both sides.
  func forget(_ id: Handle, _ connection: inout ClientConnection) {
    guard var call = calls.remove(id) else { return }
    timers.cancel(call.timer)
    connection.calls -= 1
    leaveCache(&call)
    closeSession(call)
  }

  func forgetAlone(_ id: Handle) {
    guard var call = calls.remove(id) else { return }
    timers.cancel(call.timer)
    leaveCache(&call)
    closeSession(call)
    _ = clients.edit(call.client) { connection in
      connection.calls -= 1
      touch(&connection, call.client)
    }
  }

  func deadlinePassed(_ id: Handle) {
    _ = calls.edit(id) { call in
      call.timer = .none
      dropUpstream(&call, .cancel)
    }
    failAlone(id, .deadlineExceeded, "context deadline exceeded")
  }

  // MARK: Clients

  /// All calls of a client that is gone, or will not be answered.
  func abandonCalls(_ connection: inout ClientConnection, _ handle: Handle) {
    guard connection.calls > 0 else { return }
    isLosingClient = true
    defer { isLosingClient = false }
    connection.transport.http2.forEachUser { id in
      let gone: Call? = calls.edit(id) { dropUpstream(&$0, .cancel) } == nil ? nil : calls.remove(id)
      guard var gone else { return }
      timers.cancel(gone.timer)
      count(gone, .canceled)
      leaveCache(&gone)
      closeSession(gone)
    }
    connection.calls = 0
  }

  /// Ends a connection; it is removed once the kernel has let go of it.
  func endClient(_ connection: inout ClientConnection, _ handle: Handle) {
    guard connection.phase != .ended else { return }
    abandonCalls(&connection, handle)
    connection.phase = .ended
    connection.transport.cancel(
      kernel, receive: clientToken(Operation.receive, handle), poll: clientToken(Operation.room, handle))
    touch(&connection, handle)
  }

  func removeClient(_ handle: Handle) {
    guard let connection = clients.remove(handle) else { return }
    shared.counters.addClientBytes(
      received: connection.transport.received, sent: connection.transport.sent, core: index)
    kernel.close(connection.transport.descriptor)
    shared.counters.add(.closed, core: index)
    if connection.isForPages {
      pageVisitors -= 1
    } else {
      shared.admission.release(connection.source)
    }
    gate.leave()
    acceptor.resume()
  }

  // MARK: Draining

  /// Stops accepting; calls may finish until the deadline, and streams that would go on for ever are told to go elsewhere.
  func startDraining(until deadline: Instant) {
    guard drainDeadline == nil else { return }
    drainDeadline = deadline
    acceptor.drain()
    clients.forEach { handle, connection in
      if connection.phase == .http2 {
        connection.transport.http2.goAway(.noError, "shutting down", final: false)
      } else if connection.visitor?.isAnswering != true {
        connection.phase = .closing
      }
      touch(&connection, handle)
    }
    // Whoever has not read the first notice by the next sweep has had a sweep's time to open calls.
    scheduleSweep()
  }

  func stopAtOnce() {
    startDraining(until: now)
    drainDeadline = now
    sweep()
  }

  /// The last client is gone: the connections to etcd go as well.
  func finish() {
    isEnding = true
    reads.feeds.close()
    settleOwnCalls()
    upstreams.forEach { handle, connection in endUpstream(&connection, handle, SystemError(code: ECANCELED)) }
    endOwnCalls()
    if upstreams.count == 0 { isFinished = true }
  }

  /// A later notice closes the door; what never ends by itself ends now.
  func drainClients() {
    guard let deadline = drainDeadline else { return }
    var ending: [Handle] = []
    calls.forEach { id, call in
      guard call.own == nil else { return }
      if now >= deadline || !call.isPage && call.method.isEndless { ending.append(id) }
    }
    for id in ending {
      _ = calls.edit(id) { dropUpstream(&$0, .cancel) }
      // etcd's own words when it stops: its clients know to go elsewhere.
      failAlone(id, .unavailable, "etcdserver: server stopped")
    }
    clients.forEach { handle, connection in
      if connection.phase == .http2, !connection.isDraining {
        connection.transport.http2.goAway(.noError, "shutting down", final: true)
        connection.isDraining = true
      }
      if now >= deadline {
        // What has just been said still leaves; who does not take it by the next sweep has had its time.
        if connection.phase == .closing {
          endClient(&connection, handle)
        } else {
          connection.phase = .closing
        }
      }
      touch(&connection, handle)
    }
  }
}
