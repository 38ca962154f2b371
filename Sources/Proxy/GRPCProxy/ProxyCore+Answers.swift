internal import Reactor

/// From etcd to a client's stream.
extension ProxyCore {
  /// The head of an answer has come, and messages will follow.
  func answerBegan(_ id: Handle, _ connection: inout UpstreamConnection) {
    heard(&connection)
    _ = calls.edit(id) { call in
      guard !call.headSent, call.own == nil else { return }
      if call.isOrdered {
        // Whether this answer is the one that the client gets shows when its message has come.
        HeaderRecord.write(upstreamSide.received, into: &call.tail)
        return
      }
      call.isRepeatable = false
      releaseRequest(&call)
      outgoing.removeAll()
      outgoing.append(answer: upstreamSide.received)
      sendHead(&call)
    }
  }

  /// Sends the head in `outgoing`.
  private func sendHead(_ call: inout Call) {
    call.headSent = true
    toClient(call.client) { client in
      client.transport.http2.sendHeaders(call.stream, outgoing, endStream: false)
    }
  }

  /// The answer is the one for the client: the head that was kept goes first.
  func sendKeptHead(_ call: inout Call) {
    guard call.isOrdered, !call.headSent else { return }
    call.isRepeatable = false
    releaseRequest(&call)
    outgoing.removeAll()
    HeaderRecord.read(call.tail, into: outgoing)
    call.tail.removeAll()
    sendHead(&call)
  }

  /// What has gone to etcd need not be kept once etcd has answered.
  private func releaseRequest(_ call: inout Call) {
    call.request.consume(min(call.passed, call.request.count))
    call.creditedRequest -= call.passed
    call.passed = 0
  }

  /// Bytes of an answer.
  func answerData(
    _ id: Handle, _ connection: inout UpstreamConnection, _ stream: UInt32, _ bytes: UnsafeRawBufferPointer,
    endStream: Bool
  ) {
    heard(&connection)
    if let own = own(id) {
      connection.transport.http2.credit(stream, bytes.count)
      unsafe ownAnswered(own, bytes)
      if endStream { failAlone(id, .internal, "server closed the stream without sending trailers") }
      return
    }
    var credit = 0
    let verdict: Verdict? = calls.edit(id) { call in
      if let (code, text) = unsafe checkAnswer(&call, bytes) { return .refused(code, text) }
      guard call.isCollected else {
        credit = unsafe pass(bytes, of: &call)
        return .passes
      }
      call.owedAnswer += bytes.count
      let verdict = unsafe collect(bytes, of: &call, connection.slot)
      credit = answerCredit(&call)
      return verdict
    }
    switch verdict {
    case .refused(let code, let text)?:
      connection.transport.http2.reset(stream, .cancel)
      return failAlone(id, code, text)
    case .stale?:
      connection.transport.http2.reset(stream, .cancel)
      return beginAnew(id)
    case .passes?, nil: if credit > 0 { connection.transport.http2.credit(stream, credit) }
    }
    // gRPC ends with trailers; a stream that ends with data has been cut short.
    guard endStream else { return }
    connection.transport.http2.reset(stream, .cancel)
    failAlone(id, .internal, "server closed the stream without sending trailers")
  }

  /// What becomes of bytes of an answer.
  private enum Verdict {
    case passes
    /// The answer is older than what clients have seen: another is wanted.
    case stale
    case refused(GRPCStatus.Code, String)
  }

  /// Keeps bytes of an answer that is looked at whole, and passes on what can be.
  private func collect(_ bytes: UnsafeRawBufferPointer, of call: inout Call, _ slot: Int) -> Verdict {
    guard call.rewrites || !call.headSent else {
      _ = unsafe pass(bytes, of: &call)
      return .passes
    }
    if call.outbox.count > Limits.largestStreamWindow, pool.bytesInUse > Limits.bufferedBytesACore {
      return .refused(.resourceExhausted, "too many bytes are under way; try again later")
    }
    unsafe call.outbox.append(bytes)
    var refusal: (GRPCStatus.Code, String)?
    if call.isOrdered, !call.headSent {
      guard let revision = call.answeredRevision else { return .passes }
      guard isInOrder(&call, revision, slot) else { return .stale }
      sendKeptHead(&call)
      refusal = passCollected(&call)
    } else {
      refusal = rewriteAnswer(&call)
    }
    guard let (code, text) = refusal else { return .passes }
    return .refused(code, text)
  }

  /// etcd's credit for bytes that were collected: at once, so that a message can be longer than a window,
  /// unless much of what was made of them waits for the client.
  private func answerCredit(_ call: inout Call) -> Int {
    guard call.response.count < Limits.upstreamStreamWindow else { return 0 }
    defer { call.owedAnswer = 0 }
    return call.owedAnswer
  }

  private func checkAnswer(_ call: inout Call, _ bytes: UnsafeRawBufferPointer) -> (GRPCStatus.Code, String)?
  {
    var refusal: (GRPCStatus.Code, String)?
    var offset = 0
    while let step = unsafe call.responseFrames.next(bytes, from: &offset) {
      guard case .header(let flag, let length) = step else {
        if call.peek.isOpen, case .payload(let range, _) = step,
          let revision = unsafe call.peek.take(UnsafeRawBufferPointer(rebasing: bytes[range]))
        {
          answerRevision(&call, revision)
        }
        continue
      }
      call.peek.begin(isPlain: flag == 0)
      shared.counters.sentMessage(call.method, core: index)
      if options.logsCalls { logMessage(call, isRequest: false, length) }
      if length > answerLimit, refusal == nil {
        refusal = (
          .resourceExhausted, "grpc: received message larger than max (\(length) vs. \(answerLimit))"
        )
      }
    }
    return refusal
  }

  /// Gives the client's connection what it takes; the rest waits in the call.
  ///
  /// - Returns: bytes that have left, to be credited to etcd.
  func pass(_ bytes: UnsafeRawBufferPointer, of call: inout Call) -> Int {
    if call.read.leads { unsafe reads.flights.capture(call.read.flight, bytes) }
    guard call.response.isEmpty else {
      unsafe call.response.append(bytes)
      return 0
    }
    var taken = 0
    toClient(call.client) { client in
      unsafe taken = client.transport.http2.send(call.stream, bytes, endStream: false)
    }
    if taken < bytes.count {
      unsafe call.response.append(UnsafeRawBufferPointer(rebasing: bytes[taken...]))
      readStalled(&call)
    }
    return taken
  }

  private func toClient(_ handle: Handle, _ body: (inout ClientConnection) -> Void) {
    _ = clients.edit(handle) { client in
      body(&client)
      touch(&client, handle)
    }
  }

  private func heard(_ connection: inout UpstreamConnection) {
    connection.asked = now
    shared.board.heard(core: index, slot: connection.slot, at: now)
  }

  /// Trailers have come, alone (`isHead`) or behind the messages.
  func answerEnded(_ id: Handle, _ connection: inout UpstreamConnection, isHead: Bool) {
    heard(&connection)
    let fields = upstreamSide.received
    let code = GRPCStatus.Code(fields)
    let slot = connection.slot
    if let own = own(id) { return ownTrailers(id, own, &connection, code, isHead: isHead) }
    var isOver = true
    var isAnew = false
    _ = calls.edit(id) { call in
      call.upstream = nil
      // The rest of the request has nowhere to go, and etcd's reset behind its trailers must not reach the call.
      connection.transport.http2.reset(call.upstreamStream, .noError)
      if isHead, !call.headSent, mayTryElsewhere(call, code, slot) {
        isOver = false
        isAnew = true
        return
      }
      if !isHead { sendKeptHead(&call) }
      if call.method.changesAuth {
        shared.authVersion.add(1, ordering: .releasing)
        shared.authWasOff.store(0, ordering: .relaxed)
      }
      if call.method == .compact, code == .ok { shared.noteCompaction(call.compactRevision) }
      if call.method.kind == .unary { routes.took(now - call.started, slot) }
      count(call, code)
      readAnswered(&call, code, fields)
      call.phase = .finishing
      outgoing.removeAll()
      outgoing.append(answer: fields)
      if call.response.isEmpty {
        finishAnswer(&call)
      } else {
        HeaderRecord.write(outgoing, into: &call.tail)
        isOver = false
      }
    }
    if isAnew { beginAnew(id) }
    if isOver { forgetAlone(id) }
  }

  private func ownTrailers(
    _ id: Handle, _ own: OwnCall, _ connection: inout UpstreamConnection, _ code: GRPCStatus.Code,
    isHead: Bool
  ) {
    let words = unsafe upstreamSide.received.value(of: .grpcMessage).map { unsafe Array($0) } ?? []
    let slot = connection.slot
    let isAnew: Bool? = calls.edit(id) { call in
      call.upstream = nil
      connection.transport.http2.reset(call.upstreamStream, .noError)
      // What it answered before has made the call count as new.
      call.tried.insert(slot)
      call.tries = max(call.tries, 1)
      return isHead && mayTryElsewhere(call, code, slot)
    }
    if isAnew == true || own.survives(code, words), ownLost(own) || !own.isPersistent { return beginAnew(id) }
    ownEnded(id, own, code, words)
  }

  /// Whether an answer of nothing but an error may be replaced by that of another endpoint: only for calls that may be
  /// made twice, and only while an endpoint is left that has not been asked.
  private func mayTryElsewhere(_ call: borrowing Call, _ code: GRPCStatus.Code, _ slot: Int) -> Bool {
    guard code == .unavailable, call.isRepeatable, call.method.isRead, now < call.deadline else {
      return false
    }
    return table.endpoints.contains {
      !call.tried.contains($0.slot) && shared.board.status($0.slot) != .down && routes[$0.slot].retryAt <= now
    }
  }

  /// Sends the trailers in `outgoing` and ends the client's stream.
  private func finishAnswer(_ call: inout Call) {
    toClient(call.client) { client in
      client.transport.http2.sendHeaders(call.stream, outgoing, endStream: true)
      // As a gRPC server does that is done before its client is: the rest of the request is not wanted.
      if !call.clientEnded { client.transport.http2.reset(call.stream, .noError) }
    }
  }

  /// The client takes more of an answer.
  func clientTakes(
    _ id: Handle, _ connection: inout ClientConnection, _ handle: Handle, _ stream: UInt32
  ) {
    var credited: (upstream: Handle, stream: UInt32, count: Int)?
    var isOver = false
    if let session = calls.edit(id, { $0.session }) ?? nil {
      session.writable(on: &connection)
      return touch(&connection, handle)
    }
    _ = calls.edit(id) { call in
      guard !call.response.isEmpty else { return }
      let taken = unsafe connection.transport.http2.send(stream, call.response.bytes, endStream: false)
      call.response.consume(taken)
      if let upstream = call.upstream {
        credited = (upstream, call.upstreamStream, call.isCollected ? answerCredit(&call) : taken)
      }
      guard call.response.isEmpty, call.phase == .finishing else { return }
      isOver = true
      if call.isPage { return connection.transport.http2.sendEnd(stream) }
      outgoing.removeAll()
      HeaderRecord.read(call.tail, into: outgoing)
      connection.transport.http2.sendHeaders(stream, outgoing, endStream: true)
      if !call.clientEnded { connection.transport.http2.reset(stream, .noError) }
    }
    touch(&connection, handle)
    if isOver { forget(id, &connection) }
    guard let (upstream, upstreamStream, count) = credited, count > 0 else { return }
    _ = upstreams.edit(upstream) { connection in
      connection.transport.http2.credit(upstreamStream, count)
      touch(&connection, upstream)
    }
  }

  /// etcd has reset the stream.
  func upstreamReset(_ id: Handle, _ connection: inout UpstreamConnection, _ code: HTTP2Code) {
    heard(&connection)
    // A reset with NO_ERROR follows trailers; those have ended the call.
    failAlone(
      id, GRPCStatus.Code(resetCode: code.rawValue),
      "stream terminated by RST_STREAM with error code: \(code.name)")
  }

  /// The call's connection is gone, or never had the call.
  ///
  /// What certainly has not been acted on, or may be made twice, begins anew; etcd's proxy lets it fail.
  func lost(_ id: Handle, certainlyUnseen: Bool, _ reason: String) {
    if let own = own(id), own.isPersistent {
      _ = calls.edit(id) { $0.upstream = nil }
      return ownLost(own) ? beginAnew(id) : failAlone(id, .unavailable, reason)
    }
    let failure: Bool? = calls.edit(id) { call in
      call.upstream = nil
      let isSafe = certainlyUnseen || call.method.isRead || call.method.mayBeginAnew
      return
        !(call.isRepeatable && !call.headSent && isSafe && call.tries < Limits.triesACall
        && now < call.deadline)
    }
    switch failure {
    case true?: failAlone(id, .unavailable, reason)
    case false?: beginAnew(id)
    case nil: break
    }
  }

  /// Makes the call once more, with a stream of its own.
  private func beginAnew(_ id: Handle) {
    shared.counters.add(.retries, core: index)
    starting.append(id)
    _ = calls.edit(id) { call in
      call.upstream = nil
      call.phase = .waiting
      call.requestEnded = false
      call.passed = 0
      call.tail.removeAll()
      call.outbox.removeAll()
      call.answered = -1
      call.owedAnswer = 0
      call.responseFrames = MessageFramer()
    }
  }
}
