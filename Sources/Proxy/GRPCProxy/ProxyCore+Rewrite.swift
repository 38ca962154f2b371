internal import Reactor

/// Calls whose messages change on their way: those with keys inside a namespace, and the member list. Their messages are
/// collected whole, rewritten, and go on.
extension ProxyCore {
  /// Whether a method's messages are looked into.
  func rewrites(_ method: EtcdMethod) -> Bool {
    if method == .memberList, members != nil { return true }
    guard let namespace = shared.namespace else { return false }
    return method.carriesKeys || namespace.isStrict
  }

  /// Nothing to do before the call begins; false when the call must wait for a decision.
  func prepareRewritten(_ call: inout Call) -> Bool { true }

  /// Rewrites the messages of a request that are complete, for `passRequest`.
  func rewriteRequest(_ call: inout Call) -> (GRPCStatus.Code, String)? {
    guard let namespace = shared.namespace, call.method != .memberList else {
      moveAll(&call.inbox, to: &call.request)
      return nil
    }
    while let length = unsafe GRPCMessage.complete(call.inbox.bytes) {
      let frame = unsafe call.inbox.bytes
      let body = unsafe UnsafeRawBufferPointer(rebasing: frame[GRPCMessage.prefix..<length])
      let start = call.request.count
      if unsafe frame[0] != 0 {
        // Compressed, so that nobody here can tell which keys it names. etcd, which takes no compressed messages, says so in
        // its own words to an empty one.
        GRPCMessage.begin(&call.request)
        unsafe call.request.mutableBytes[start] = 1
        call.inbox.consume(length)
        continue
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
      case .needsLeaseCheck: return (.permissionDenied, "leases cannot be checked")
      }
      call.inbox.consume(length)
    }
    return nil
  }

  /// Rewrites the messages of an answer that are complete.
  func rewriteAnswer(_ call: inout Call) -> (GRPCStatus.Code, String)? {
    while let length = unsafe GRPCMessage.complete(call.outbox.bytes) {
      let frame = unsafe call.outbox.bytes
      let body = unsafe UnsafeRawBufferPointer(rebasing: frame[GRPCMessage.prefix..<length])
      var message = ByteBuffer(pool)
      GRPCMessage.begin(&message)
      var isNew = false
      if call.method == .memberList, let members {
        isNew = unsafe members.replace(in: body, into: &message)
      } else if let namespace = shared.namespace {
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

  /// Bytes to be credited to etcd: all that was collected, as long as little of what became of it waits.
  func answerCredit(_ call: inout Call) -> Int {
    guard call.response.count <= Limits.rewrittenAhead else { return 0 }
    defer { call.answerDebt = 0 }
    return call.answerDebt
  }

  private func moveAll(_ source: inout ByteBuffer, to destination: inout ByteBuffer) {
    unsafe destination.append(source.bytes)
    source.removeAll()
  }
}

/// gRPC's five bytes before a message (length-prefixed message).
enum GRPCMessage {
  static let prefix = 5

  /// The length of the first message, prefix included, if it is there in full.
  static func complete(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= prefix else { return nil }
    let length = unsafe Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
    return bytes.count >= prefix + length ? prefix + length : nil
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
