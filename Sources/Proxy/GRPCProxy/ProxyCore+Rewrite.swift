internal import Reactor

/// Calls whose messages change on their way: those with keys inside a namespace, and the member list. Their messages are
/// collected whole, rewritten, and go on.
extension ProxyCore {
  /// Whether a method's messages are looked into.
  func rewrites(_ method: EtcdMethod) -> Bool {
    if method == .authenticate || method == .memberList && members != nil { return true }
    guard let namespace = shared.namespace else { return false }
    return method.carriesKeys || namespace.isStrict
  }

  /// Rewrites the messages of a request that are complete, for `passRequest`.
  func rewriteRequest(_ call: inout Call, _ id: Handle) -> (GRPCStatus.Code, String)? {
    guard call.awaitedLease == 0 else { return nil }
    if call.method == .authenticate { noteUser(&call) }
    guard let namespace = shared.namespace, call.method != .memberList else {
      moveAll(&call.inbox, to: &call.request)
      return nil
    }
    while let length = unsafe GRPCMessage.complete(call.inbox.bytes) {
      let frame = unsafe call.inbox.bytes
      let body = unsafe UnsafeRawBufferPointer(rebasing: frame[GRPCMessage.prefix..<length])
      let start = call.request.count
      if unsafe frame[0] != 0 {
        // Nobody here can tell which keys it names. In the words of a server that takes no such messages, as etcd 3.4 is.
        var encoding = "identity"
        unsafe HeaderRecord.value(.grpcEncoding, in: call.head) {
          unsafe encoding = String(decoding: $0, as: UTF8.self)
        }
        return (.unimplemented, "grpc: Decompressor is not installed for grpc-encoding \"\(encoding)\"")
      }
      GRPCMessage.begin(&call.request)
      switch unsafe namespace.request(call.method, body, into: &call.request) {
      case .rewritten: GRPCMessage.end(&call.request, from: start)
      case .unchanged:
        call.request.truncate(to: start)
        unsafe call.request.append(UnsafeRawBufferPointer(rebasing: frame[..<length]))
      case .refused(let code, let text): return (code, "\(text)")
      case .malformed:
        // Not passed on: what we cannot read etcd might. The beginning of a field without an end it cannot read either.
        call.request.truncate(to: start)
        GRPCMessage.begin(&call.request)
        call.request.append(0x0A)
        GRPCMessage.end(&call.request, from: start)
      case .needsLeaseCheck(let lease, let isRewritten):
        guard lease == call.clearedLease || shared.ownLeases.contains(lease) else {
          call.request.truncate(to: start)
          return askForLease(lease, &call, id)
        }
        if isRewritten {
          GRPCMessage.end(&call.request, from: start)
        } else {
          call.request.truncate(to: start)
          unsafe call.request.append(UnsafeRawBufferPointer(rebasing: frame[..<length]))
        }
      }
      call.inbox.consume(length)
    }
    // The beginning of a message whose end will not come: etcd complains of it in its own words.
    if call.clientEnded { moveAll(&call.inbox, to: &call.request) }
    return nil
  }

  // MARK: Leases in a strict namespace

  /// Leases belong to nobody in etcd. In a strict namespace one may be used that was granted through it, or whose keys all
  /// lie inside: etcd is asked with the client's own credentials.
  private func askForLease(_ lease: Int64, _ call: inout Call, _ id: Handle) -> (GRPCStatus.Code, String)? {
    var token: [UInt8] = []
    unsafe HeaderRecord.value(.token, in: call.head) { unsafe token = Array($0) }
    let request = LeaseQuestion(core: index, call: id, lease: lease, token: token)
    guard shared.leaseQuestions[index].push(request) == nil else {
      return (.resourceExhausted, "too many leases are being looked up; try again later")
    }
    call.awaitedLease = lease
    shared.group.control.wake()
    return nil
  }

  /// The control thread has looked the lease up.
  func leaseAnswered(_ answer: LeaseAnswer) {
    var client: (handle: Handle, stream: UInt32)?
    var credit = 0
    let refusal: (GRPCStatus.Code, String)?? = calls.edit(answer.call) { call in
      call.awaitedLease = 0
      call.clearedLease = answer.lease
      client = (call.client, call.stream)
      if let status = answer.refusal { return (status.code, String(decoding: status.message, as: UTF8.self)) }
      if let refusal = rewriteRequest(&call, answer.call) { return refusal }
      credit = passRequest(&call)
      return nil
    }
    guard let (handle, stream) = client else { return }
    _ = clients.edit(handle) { connection in
      if let refusal, let (code, text) = refusal {
        return failCall(answer.call, &connection, handle, code, text)
      }
      guard credit > 0 else { return }
      connection.transport.http2.credit(stream, credit)
      touch(&connection, handle)
    }
  }

  /// Whose token the answer will bring.
  private func noteUser(_ call: inout Call) {
    guard let length = unsafe GRPCMessage.complete(call.inbox.bytes) else { return }
    var names = unsafe ProtoSequence(
      of: 1, in: UnsafeRawBufferPointer(rebasing: call.inbox.bytes[GRPCMessage.prefix..<length]))
    while let name = unsafe try? names.next() { call.user = unsafe Array(name) }
  }

  /// Remembers whose token it is.
  private func noteToken(_ call: borrowing Call, _ message: UnsafeRawBufferPointer) {
    var tokens = unsafe ProtoSequence(of: 2, in: message)
    while let token = unsafe try? tokens.next() {
      unsafe shared.principals.learn(token: Array(token), user: call.user)
      unsafe acceptedTokens.accepted(token, asked: now, shared)
    }
  }

  /// Remembers a lease that was granted through the namespace.
  private func noteLease(_ message: UnsafeRawBufferPointer) {
    guard let answer = unsafe try? LeaseGrantResponse(message), answer.id != 0 else { return }
    shared.ownLeases.insert(answer.id)
  }

  /// Rewrites the messages of an answer that are complete.
  func rewriteAnswer(_ call: inout Call) -> (GRPCStatus.Code, String)? {
    if call.outbox.count > Limits.rewrittenAnswerBytes {
      return (
        .resourceExhausted,
        "an answer in a namespace may have \(Limits.rewrittenAnswerBytes) bytes; ask for less with a limit"
      )
    }
    while let length = unsafe GRPCMessage.complete(call.outbox.bytes) {
      let frame = unsafe call.outbox.bytes
      let body = unsafe UnsafeRawBufferPointer(rebasing: frame[GRPCMessage.prefix..<length])
      var message = ByteBuffer(pool)
      GRPCMessage.begin(&message)
      var isNew = false
      if call.method == .authenticate { unsafe noteToken(call, body) }
      if call.method == .memberList, let members {
        isNew = unsafe members.replace(in: body, into: &message)
      } else if let namespace = shared.namespace {
        if call.method == .leaseGrant, namespace.isStrict { unsafe noteLease(body) }
        switch unsafe namespace.response(call.method, body, into: &message) {
        case .rewritten: isNew = true
        case .unchanged: break
        case .refused(let code, let text): return (code, "\(text)")
        case .malformed, .needsLeaseCheck: return (.internal, "etcd's answer could not be read")
        }
      }
      if isNew {
        GRPCMessage.end(&message, from: 0)
        _ = unsafe pass(message.bytes, of: &call)
      } else {
        _ = unsafe pass(UnsafeRawBufferPointer(rebasing: frame[..<length]), of: &call)
      }
      call.outbox.consume(length)
    }
    return nil
  }

  private func moveAll(_ source: inout ByteBuffer, to destination: inout ByteBuffer) {
    unsafe destination.append(source.bytes)
    source.removeAll()
  }
}

/// gRPC's five bytes before a message (length-prefixed message).
enum GRPCMessage {
  static let prefix = 5

  /// The length that the first message says it has, without the prefix; nil while that is not there.
  static func announced(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= prefix else { return nil }
    return unsafe Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
  }

  /// The length of the first message, prefix included, if it is there in full.
  static func complete(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard let length = unsafe announced(bytes), bytes.count >= prefix + length else { return nil }
    return prefix + length
  }

  /// Leaves room for the prefix of a message that is appended next.
  static func begin(_ buffer: inout ByteBuffer) {
    unsafe buffer.reserve(prefix).initializeMemory(as: UInt8.self, repeating: 0)
    buffer.commit(prefix)
  }

  /// Fills the prefix in that `begin` left at `start`.
  static func end(_ buffer: inout ByteBuffer, from start: Int) {
    let length = UInt32(truncatingIfNeeded: buffer.count - start - prefix)
    unsafe buffer.mutableBytes.storeBytes(of: length.bigEndian, toByteOffset: start + 1, as: UInt32.self)
  }
}
