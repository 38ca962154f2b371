internal import Reactor

/// A call that a core makes to etcd on the proxy's own account: a watch stream that feeds groups, a stream of heartbeats, a question.
///
/// It is dispatched like a client's call. One that is persistent is made again for ever, at whichever endpoint is well:
/// `opened` then says again what etcd has to know. The others are made again while they have not been answered, if
/// their method is a read.
///
/// Nothing here is called while a call is under edit; a connection to etcd may be, so what is said leaves at the end of the
/// turn.
class OwnCall {
  unowned let core: ProxyCore
  let method: EtcdMethod
  /// The client's `token` under whose name it is made; empty is nobody's.
  let token: [UInt8]
  let requiresLeader: Bool
  let isPersistent: Bool
  /// Another proxy on the way may not answer it out of its cache.
  let bypassesCaches: Bool
  /// Nil before it began and after it has ended.
  fileprivate(set) var id: Handle?
  private var inbox: ByteBuffer

  init(
    _ core: ProxyCore, _ method: EtcdMethod, token: [UInt8] = [], requiresLeader: Bool = false,
    isPersistent: Bool = false, bypassesCaches: Bool = false
  ) {
    self.core = core
    self.method = method
    self.token = token
    self.requiresLeader = requiresLeader
    self.isPersistent = isPersistent
    self.bypassesCaches = bypassesCaches
    inbox = ByteBuffer(core.pool)
  }

  // MARK: For those who inherit

  /// A stream to etcd is open, and nothing has been said on it.
  func opened() {}

  /// The stream is gone, and the call will be made again.
  func interrupted() {}

  /// etcd has ended the call with a status. True when it is to be made again, at another endpoint if there is one.
  func survives(_ code: GRPCStatus.Code, _ words: [UInt8]) -> Bool { false }

  /// A message has come.
  func received(_ message: UnsafeRawBufferPointer) {}

  /// The call is over: by etcd's status, or because it cannot be made. `words` is the status' message as it is sent in
  /// header fields.
  func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {}

  // MARK: What can be done

  /// Begins the call; false when there are too many.
  func begin() -> Bool {
    precondition(id == nil)
    guard let id = core.insert(self) else { return false }
    self.id = id
    return true
  }

  /// Says a message, which `write` appends.
  func say(_ write: (inout ByteBuffer) -> Void) {
    guard let id else { return }
    _ = core.calls.edit(id) { call in
      let start = call.request.count
      GRPCMessage.begin(&call.request)
      write(&call.request)
      GRPCMessage.end(&call.request, from: start)
    }
    core.pushing.append(id)
  }

  /// Says several messages, which `write` appends with their prefixes.
  func sayMessages(_ write: (inout ByteBuffer) -> Void) {
    guard let id else { return }
    _ = core.calls.edit(id) { write(&$0.request) }
    core.pushing.append(id)
  }

  /// Nothing more will be said.
  func finish() {
    guard let id else { return }
    _ = core.calls.edit(id) { $0.clientEnded = true }
    core.pushing.append(id)
  }

  /// Lets go of it; nothing is called any more.
  func abandon() {
    guard let id else { return }
    self.id = nil
    core.abandoned.append(id)
  }

  // MARK: The core's side

  /// The stream to etcd is open.
  fileprivate func begun() {
    inbox.removeAll()
    opened()
  }

  /// Cuts what has come into messages. False when that is none of gRPC's.
  fileprivate func take(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard inbox.isEmpty else {
      unsafe inbox.append(bytes)
      let whole = unsafe inbox.bytes
      guard let used = unsafe takeMessages(whole) else { return false }
      inbox.consume(used)
      return true
    }
    guard let used = unsafe takeMessages(bytes) else { return false }
    if used < bytes.count { unsafe inbox.append(UnsafeRawBufferPointer(rebasing: bytes[used...])) }
    return true
  }

  private func takeMessages(_ bytes: UnsafeRawBufferPointer) -> Int? {
    var offset = 0
    while id != nil {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset...])
      guard let length = unsafe GRPCMessage.complete(rest) else { return offset }
      guard unsafe rest[0] == 0 else { return nil }
      unsafe received(UnsafeRawBufferPointer(rebasing: rest[GRPCMessage.prefix..<length]))
      offset += length
    }
    return bytes.count
  }

  fileprivate func close() { id = nil }
}

/// How own calls run on the core.
extension ProxyCore {
  fileprivate func insert(_ own: OwnCall) -> Handle? {
    var call = Call(client: .none, stream: 0, method: own.method, now: now, pool)
    call.own = own
    // What a persistent one has said is said anew by `opened`, so nothing of it is kept.
    call.isRepeatable = !own.isPersistent && own.method.isRead
    outgoing.removeAll()
    unsafe "/\(own.method.service)/\(own.method.name)".withUTF8Bytes { unsafe outgoing.append(":path", $0) }
    outgoing.append("content-type", "application/grpc")
    outgoing.append("user-agent", "ringway")
    if !own.token.isEmpty {
      unsafe own.token.withUnsafeBytes { token in
        unsafe outgoing.append("token", token)
        // Both names: etcd looks at the first, gateways of its API at the second.
        unsafe outgoing.append("authorization", token)
      }
    }
    if own.requiresLeader { outgoing.append("hasleader", "true") }
    if own.bypassesCaches { outgoing.append("ringway-bypass", "cache") }
    HeaderRecord.write(outgoing, into: &call.head)
    guard let id = calls.insert(call) else { return nil }
    starting.append(id)
    return id
  }

  /// A stream was opened for the call: it speaks first.
  func ownBegan(_ id: Handle) {
    guard let own = own(id) else { return }
    own.begun()
  }

  /// The own call behind a handle.
  func own(_ id: Handle) -> OwnCall? { calls.edit(id) { $0.own } ?? nil }

  /// Bytes of an answer to an own call.
  func ownAnswered(_ own: OwnCall, _ bytes: UnsafeRawBufferPointer) {
    guard let id = own.id else { return }
    _ = calls.edit(id) { call in
      call.tries = 0
      call.tried = EndpointSet()
    }
    if unsafe !own.take(bytes) {
      own.core.drop(own, .internal, Array("etcd sent a message that cannot be read".utf8))
    }
  }

  /// The stream of an own call has been lost. True when it is made again.
  func ownLost(_ own: OwnCall) -> Bool {
    guard own.isPersistent, !isEnding else { return false }
    own.interrupted()
    return own.id != nil
  }

  /// Ends an own call and says so.
  func drop(_ own: OwnCall, _ code: GRPCStatus.Code, _ words: [UInt8]) {
    guard let id = own.id else { return }
    abandoned.append(id)
    own.close()
    own.ended(code, words)
  }

  /// An own call has ended on etcd's side.
  func ownEnded(_ id: Handle, _ own: OwnCall, _ code: GRPCStatus.Code, _ words: [UInt8]) {
    _ = calls.remove(id)
    guard own.id == id else { return }
    own.close()
    own.ended(code, words)
  }

  /// The core ends, and those that have no stream to end with it.
  func endOwnCalls() {
    var left: [Handle] = []
    calls.forEach { id, call in if call.own != nil { left.append(id) } }
    for id in left {
      if let own = own(id) { ownEnded(id, own, .unavailable, []) }
    }
  }

  /// What own calls have said leaves, and those let go of are taken back from etcd. Nothing is under edit.
  func settleOwnCalls() {
    var next = 0
    while next < pushing.count {
      _ = calls.edit(pushing[next]) { call in
        if call.phase == .open { _ = passRequest(&call) }
      }
      next += 1
    }
    pushing.removeAll(keepingCapacity: true)
    for id in abandoned {
      _ = calls.edit(id) { dropUpstream(&$0, .cancel) }
      _ = calls.remove(id)
    }
    abandoned.removeAll(keepingCapacity: true)
  }
}

extension Handle {
  /// Names nothing.
  static let none = Handle(slot: 0, generation: 0)
}
