internal import Reactor

/// From a client's stream to etcd.
extension ProxyCore {
  /// A request's head has come.
  func requestCame(
    _ connection: inout ClientConnection, _ handle: Handle, _ stream: UInt32, endStream: Bool
  ) {
    let fields = clientSide.received
    guard isGRPC(fields), !connection.isForPages else {
      return pageAsked(&connection, handle, stream, endStream: endStream)
    }
    let path = unsafe fields.value(of: .path) ?? UnsafeRawBufferPointer(start: nil, count: 0)
    let method = unsafe EtcdMethod.find(path)
    shared.counters.started(method, core: index)
    if pool.bytesInUse > Limits.bufferedBytesACore {
      return refuseCall(
        &connection, stream, method, .resourceExhausted, "too many bytes are under way; try again later")
    }
    if connection.isHoarding, pool.bytesInUse > Limits.bufferedBytesAClient {
      return refuseCall(
        &connection, stream, method, .resourceExhausted,
        "too many answers wait to be read on this connection")
    }
    var call = Call(client: handle, stream: stream, method: method, now: now, pool)
    HeaderRecord.write(fields, into: &call.head)
    call.clientEnded = endStream
    call.descriptor = connection.transport.descriptor
    call.rewrites = rewrites(method)
    call.isOrdered = orders(method)
    if let text = unsafe fields.value(of: .grpcTimeout) {
      guard let span = unsafe GRPCTimeout.parse(text) else {
        return refuseCall(&connection, stream, method, .internal, "malformed grpc-timeout")
      }
      call.deadline = now + span
    }
    guard let id = calls.insert(call) else {
      return refuseCall(
        &connection, stream, method, .resourceExhausted, "too many calls are under way; try again later")
    }
    connection.calls += 1
    connection.transport.http2.setUser(stream, id)
    _ = calls.edit(id) { call in
      guard call.deadline != .distantFuture else { return }
      call.timer = timers.schedule(at: call.deadline, Token(owner: Owner.call, operation: 0, handle: id))
    }
    let isServedHere = calls.edit(id) { openSession(&$0, id, fields) } ?? false
    if isServedHere { return endStream ? requestEnded(id, &connection, handle) : () }
    if calls.edit(id, { holdsRead(&$0, fields) }) == true {
      return endStream ? requestEnded(id, &connection, handle) : ()
    }
    // A unary request's message comes in the same breath: it is sent on together with the head.
    starting.append(id)
  }

  private func isGRPC(_ fields: HeaderList) -> Bool {
    guard let type = unsafe fields.value(of: .contentType) else { return false }
    return unsafe type.begins(with: "application/grpc")
  }

  /// Bytes of a request.
  func requestData(
    _ id: Handle, _ connection: inout ClientConnection, _ handle: Handle, _ bytes: UnsafeRawBufferPointer,
    endStream: Bool
  ) {
    var credit = bytes.count
    var stream: UInt32 = 0
    var session: ClientSession?
    var isRead = false
    let refusal: (GRPCStatus.Code, String)?? = calls.edit(id) { call in
      stream = call.stream
      session = call.session
      if endStream { call.clientEnded = true }
      if let refusal = unsafe checkRequest(&call, bytes) { return refusal }
      if session != nil { return nil }
      isRead = call.read.stage == .gathering
      if call.rewrites {
        unsafe call.inbox.append(bytes)
        call.owedRequest += bytes.count
        if isRead { return nil }
        if notesWrites(call.method) { noteWrites(&call) }
        if let refusal = rewriteRequest(&call, id) { return refusal }
      } else {
        unsafe call.request.append(bytes)
        if isRead { return nil }
        if notesWrites(call.method) { noteWrites(&call) }
        if call.method == .compact { noteCompactRequest(&call) }
      }
      credit = passRequest(&call)
      return nil
    }
    if let refusal, let (code, text) = refusal {
      return failCall(id, &connection, handle, code, text)
    }
    if let session {
      return unsafe sessionReceived(session, &connection, handle, bytes, endStream: endStream)
    }
    if isRead { return readCame(id, &connection, handle) }
    if credit > 0 { connection.transport.http2.credit(stream, credit) }
  }

  /// What will be compacted if etcd says yes.
  private func noteCompactRequest(_ call: inout Call) {
    guard let length = unsafe GRPCMessage.complete(call.request.bytes) else { return }
    var reader = unsafe ProtoReader(
      UnsafeRawBufferPointer(rebasing: call.request.bytes[GRPCMessage.prefix..<length]))
    while let field = try? reader.next() {
      if field.number == 1, field.wire == .varint { call.compactRevision = field.signed }
    }
  }

  /// `--experimental-enable-grpc-logging`. etcd's proxy writes out what is in the messages, passwords and tokens included;
  /// here only their size.
  func logMessage(_ call: borrowing Call, isRequest: Bool, _ length: Int) {
    let client = kernel.peerAddress(call.descriptor)?.description ?? "unknown"
    let (message, field) =
      isRequest
      ? ("received payload logged as grpc.request.content field", "grpc.request.content")
      : ("returned response payload logged as grpc.response.content field", "grpc.response.content")
    log.info(
      message, .string(field, "\(length) bytes"), .string("grpc.service", "\(call.method.service)"),
      .string("grpc.method", "\(call.method.name)"), .string("peer.address", client))
  }

  /// The end of a request came by itself.
  func requestEnded(_ id: Handle, _ connection: inout ClientConnection, _ handle: Handle) {
    unsafe requestData(
      id, &connection, handle, UnsafeRawBufferPointer(start: nil, count: 0), endStream: true)
  }

  /// The limit on what is sent to etcd, known as soon as a message's length is.
  private func checkRequest(_ call: inout Call, _ bytes: UnsafeRawBufferPointer) -> (GRPCStatus.Code, String)?
  {
    let limit = call.rewrites ? min(requestLimit, Limits.rewrittenRequestBytes) : requestLimit
    var refusal: (GRPCStatus.Code, String)?
    var offset = 0
    while let step = unsafe call.requestFrames.next(bytes, from: &offset) {
      guard case .header(_, let length) = step else { continue }
      shared.counters.receivedMessage(call.method, core: index)
      if options.logsCalls { logMessage(call, isRequest: true, length) }
      if length > limit, refusal == nil {
        refusal = (.resourceExhausted, "trying to send message larger than max (\(length) vs. \(limit))")
      }
    }
    return refusal
  }

  /// Gives etcd's connection what it takes of the request.
  ///
  /// - Returns: bytes to be credited to the client.
  func passRequest(_ call: inout Call) -> Int {
    guard call.phase == .open, let upstream = call.upstream else { return requestCredit(&call, 0) }
    let passed: Int? = upstreams.edit(upstream) { connection in
      let count = push(&call, &connection)
      touch(&connection, upstream)
      return count
    }
    return passed ?? 0
  }

  /// The same, for whoever has the connection in hand.
  func push(_ call: inout Call, _ connection: inout UpstreamConnection) -> Int {
    guard !call.requestEnded else { return requestCredit(&call, 0) }
    let whole = unsafe call.request.bytes
    let rest = unsafe UnsafeRawBufferPointer(rebasing: whole[min(call.passed, whole.count)...])
    let isAll = call.clientEnded && call.inbox.isEmpty
    guard rest.count > 0 || isAll else { return requestCredit(&call, 0) }
    let taken = unsafe connection.transport.http2.send(call.upstreamStream, rest, endStream: isAll)
    call.requestEnded = isAll && taken == rest.count
    call.passed += taken
    let fresh = max(0, call.passed - call.creditedRequest)
    call.creditedRequest = max(call.creditedRequest, call.passed)
    if call.isRepeatable, call.request.count > Limits.repeatableRequestBytes { call.isRepeatable = false }
    if !call.isRepeatable {
      call.request.consume(call.passed)
      call.creditedRequest -= call.passed
      call.passed = 0
    }
    return requestCredit(&call, fresh)
  }

  /// What goes back to the client when `fresh` bytes of the request have left. Bytes that were collected are
  /// credited at once, so that a message can be longer than a window, unless much waits: for etcd, or for the
  /// answer about a lease.
  private func requestCredit(_ call: inout Call, _ fresh: Int) -> Int {
    guard call.rewrites else { return fresh }
    let isMuch = call.request.count - call.passed >= Limits.clientStreamWindow
    guard !isMuch, call.awaitedLease == 0 else { return 0 }
    defer { call.owedRequest = 0 }
    return call.owedRequest
  }

  /// etcd's connection takes more of the request than before.
  func upstreamTakes(_ id: Handle, _ connection: inout UpstreamConnection) {
    var client: (Handle, UInt32)?
    let credit: Int? = calls.edit(id) { call in
      client = (call.client, call.stream)
      return push(&call, &connection)
    }
    guard let credit, credit > 0, let (client, stream) = client else { return }
    _ = clients.edit(client) { connection in
      connection.transport.http2.credit(stream, credit)
      touch(&connection, client)
    }
  }

  /// The client does not want the answer any more.
  func clientCancelled(_ id: Handle, _ connection: inout ClientConnection) {
    _ = calls.edit(id) { call in
      dropUpstream(&call, .cancel)
      count(call, .canceled)
    }
    forget(id, &connection)
  }
}
