internal import Reactor

/// Reads: answered from the cache, together with others, or by etcd.
///
/// A read is held until its message has come in full. What the cache cannot answer goes to etcd as its client has sent it;
/// the answer is then kept, and shared with those who have asked the same. The end of all that is `settleReads`.
extension ProxyCore {
  // MARK: Coming

  /// A request's head has come. True if the call is held for its message.
  func holdsRead(_ call: inout Call, _ fields: HeaderList) -> Bool {
    guard call.method == .range else { return false }
    // Who asks for a leader asks for etcd.
    if unsafe fields.value(of: .hasleader) != nil { return false }
    let bypass = Bypass(fields)
    if bypass == .cache || bypass == .all { return false }
    call.read.stage = .gathering
    // As etcd looks for it.
    let token = unsafe fields.clientToken
    call.read.principal = unsafe principals.find(token ?? UnsafeRawBufferPointer(start: nil, count: 0))
    return true
  }

  private enum Step {
    case holds, over, goes
    case refused(GRPCStatus.Code, String)
  }

  /// More of a read's message has come.
  func readCame(_ id: Handle, _ connection: inout ClientConnection, _ handle: Handle) {
    let step: Step? = calls.edit(id) { call in consider(&call, id, &connection) }
    proceed(step, id, &connection, handle)
  }

  private func proceed(
    _ step: Step?, _ id: Handle, _ connection: inout ClientConnection, _ handle: Handle
  ) {
    touch(&connection, handle)
    switch step {
    case .over?: forget(id, &connection)
    case .goes?: starting.append(id)
    case .refused(let code, let words)?: failCall(id, &connection, handle, code, words)
    case .holds?, nil: break
    }
  }

  /// The message in the client's words, once it is there in full.
  private func message(_ call: borrowing Call) -> UnsafeRawBufferPointer? {
    let bytes = unsafe call.rewrites ? call.inbox.bytes : call.request.bytes
    guard let length = unsafe GRPCMessage.complete(bytes), length == bytes.count, unsafe bytes[0] == 0 else {
      return nil
    }
    return unsafe UnsafeRawBufferPointer(rebasing: bytes[GRPCMessage.prefix...])
  }

  private func consider(_ call: inout Call, _ id: Handle, _ connection: inout ClientConnection) -> Step {
    let count = call.request.count + call.inbox.count
    guard call.clientEnded || count > Limits.cachedRequestBytes else { return .holds }
    guard call.clientEnded, let message = unsafe message(call), let query = unsafe RangeQuery(message) else {
      call.read.stage = .none
      return goes(&call, id)
    }
    call.read.stage = .asking
    call.read.isSerializable = query.isSerializable
    call.read.fixed = query.revision
    // An answer behind what the client has seen is not shown to it.
    call.isOrdered = call.isOrdered || query.isSerializable
    guard reads.isOn, let key = reads.cache.prepare(query, call.read.principal) else {
      return goes(&call, id)
    }
    if call.read.fixed > 0 { reads.cache.compact(to: shared.compacted.load(ordering: .relaxed)) }
    let token = unsafe token(of: call)
    // Who shows none is nobody, whom etcd's answers to nobody concern.
    let isTrusted =
      unsafe token.isEmpty
      || acceptedTokens.contains(token, now, within: Limits.permissionAge, shared)
    if isTrusted, call.read.isSerializable {
      if let hit = unsafe reads.cache.look(key, shown: shown(connection), token: token, now) {
        return answer(&call, &connection, hit, isConsistent: false) ? .over : .holds
      }
    } else if isTrusted, reads.cache.settings.isConsistent, reads.cache.knows(key), call.read.fixed == 0 {
      call.read.stage = .indexing
      reads.indexes.join(id, call.read.principal)
      return .holds
    }
    if call.read.isSerializable { reads.cache.count(.misses) }
    return join(&call, id, key, isShared: isTrusted)
  }

  /// The revision behind which the client must not be shown anything.
  private func shown(_ connection: borrowing ClientConnection) -> Int64 {
    guard options.serializableOrdering else { return connection.shown }
    return max(connection.shown, shared.newestRevision.load(ordering: .relaxed))
  }

  /// Good until the call's head is gone.
  func token(of call: borrowing Call) -> UnsafeRawBufferPointer {
    var token: UnsafeRawBufferPointer?
    unsafe HeaderRecord.value(.token, in: call.head) { if unsafe token == nil { unsafe token = $0 } }
    guard unsafe token == nil else { return unsafe token ?? UnsafeRawBufferPointer(start: nil, count: 0) }
    unsafe HeaderRecord.value(.authorization, in: call.head) { if unsafe token == nil { unsafe token = $0 } }
    return unsafe token ?? UnsafeRawBufferPointer(start: nil, count: 0)
  }

  /// To etcd, or to those who are on the way there.
  private func join(_ call: inout Call, _ id: Handle, _ key: RangeCache.Key, isShared: Bool) -> Step {
    let wants = call.read.isSerializable || reads.cache.settings.isConsistent || reads.cache.knows(key)
    let isLinearizable = !call.read.isSerializable
    let role = unsafe reads.cache.withKey { bytes in
      unsafe reads.flights.join(
        id, key: bytes, hash: key.hash, isLinearizable: isLinearizable, isShared: isShared,
        captures: wants || !isShared)
    }
    shared.cacheInterest[index].show()
    let step = goes(&call, id)
    guard case .goes = step else {
      if case .leads(let flight) = role { _ = reads.flights.finish(flight) }
      return step
    }
    switch role {
    case .alone: return step
    case .leads(let flight):
      call.read.flight = flight
      call.read.leads = true
      return step
    case .waits(let flight):
      call.read.flight = flight
      return .holds
    }
  }

  private func goes(_ call: inout Call, _ id: Handle) -> Step {
    guard call.rewrites, let (code, words) = rewriteRequest(&call, id) else { return .goes }
    return .refused(code, words)
  }

  // MARK: Answering

  /// Answers from the cache. False if some of it waits for the client.
  private func answer(
    _ call: inout Call, _ connection: inout ClientConnection, _ hit: RangeCache.Hit, isConsistent: Bool
  ) -> Bool {
    reads.cache.count(hit.isFixed ? .fixedHits : isConsistent ? .consistentHits : .serializableHits)
    connection.shown = max(connection.shown, hit.revision)
    shared.noteSeen(hit.revision)
    var isOver = false
    unsafe reads.cache.withMessage(hit) { message in
      isOver = unsafe answer(&call, &connection, message)
    }
    return isOver
  }

  /// Answers with a message as it stands on the wire. False if some of it waits for the client.
  private func answer(
    _ call: inout Call, _ connection: inout ClientConnection, _ message: UnsafeRawBufferPointer
  ) -> Bool {
    connection.transport.http2.sendResponseHead(call.stream)
    call.headSent = true
    shared.counters.sentMessage(call.method, core: index)
    count(call, .ok)
    let taken = unsafe connection.transport.http2.send(call.stream, message, endStream: false)
    call.request.removeAll()
    call.inbox.removeAll()
    guard taken < message.count else {
      connection.transport.http2.sendTrailersOK(call.stream)
      return true
    }
    unsafe call.response.append(UnsafeRawBufferPointer(rebasing: message[taken...]))
    call.phase = .finishing
    outgoing.removeAll()
    outgoing.append("grpc-status", "0")
    outgoing.append("grpc-message", "")
    HeaderRecord.write(outgoing, into: &call.tail)
    return false
  }

  /// The read goes to etcd once more, as one that etcd's members answer together.
  func linearize(_ call: inout Call) {
    call.read.isLinearized = true
    reads.cache.count(.orderedReads)
    let bytes = unsafe call.request.bytes
    guard let length = unsafe GRPCMessage.complete(bytes) else { return }
    var request = ByteBuffer(pool)
    GRPCMessage.begin(&request)
    let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[GRPCMessage.prefix..<length])
    guard unsafe RangeQuery.linearize(message, into: &request) else { return }
    GRPCMessage.end(&request, from: 0)
    call.request.removeAll()
    unsafe call.request.append(request.bytes)
  }

  // MARK: etcd's answers

  /// The call's request is on its way.
  func readSent(_ call: borrowing Call) {
    guard call.read.leads else { return }
    reads.flights.sent(call.read.flight, now, sequence: reads.cache.sequence)
  }

  /// etcd has answered a read that leads.
  func readAnswered(_ call: inout Call, _ code: GRPCStatus.Code, _ fields: HeaderList) {
    if code == .outOfRange, call.read.fixed > 0 { noteCompaction(call.read.fixed, fields) }
    guard call.read.leads else { return }
    let name = call.read.flight
    call.read.leads = false
    call.read.flight = .none
    guard let flight = reads.flights.finish(name) else { return }
    var message: [UInt8] = []
    let bytes = unsafe flight.captured.bytes
    if code == .ok {
      unsafe acceptedTokens.accepted(token(of: call), asked: flight.sent.at, shared)
      if flight.captures, let length = unsafe GRPCMessage.complete(bytes), length == bytes.count,
        unsafe bytes[0] == 0
      {
        unsafe reads.cache.insert(
          key: flight.key.bytes, message: UnsafeRawBufferPointer(rebasing: bytes[GRPCMessage.prefix...]),
          sent: flight.sent, now)
        if !flight.waiters.isEmpty { message = unsafe Array(bytes) }
      }
    }
    guard !flight.waiters.isEmpty || !flight.next.isEmpty else { return }
    reads.finished.append(
      unsafe FinishedRead(
        flight: name, waiters: flight.waiters, next: flight.next, message: message,
        revision: max(0, call.answered), key: Array(flight.key.bytes), hash: flight.hash))
  }

  /// etcd's words for a revision that is gone; one that has not come has the same code.
  private func noteCompaction(_ revision: Int64, _ fields: HeaderList) {
    guard let words = unsafe fields.value(of: .grpcMessage) else { return }
    let text = unsafe String(decoding: words, as: UTF8.self)
    if text.contains("compacted"), revision < .max { shared.noteCompaction(revision + 1) }
  }

  /// The call is over, or will not be answered by the read it waits for.
  func leaveRead(_ call: borrowing Call) {
    if call.read.leads { reads.orphaned.append(call.read.flight) }
  }

  /// The client of a read that leads does not take the answer: those who wait for it go on without.
  func readStalled(_ call: inout Call) {
    guard call.read.leads, reads.flights.stalled(call.read.flight) else { return }
    reads.orphaned.append(call.read.flight)
    call.read.leads = false
    call.read.flight = .none
  }

  // MARK: The end of the turn

  /// Those who have waited get their answers, or go on without. Nothing is under edit.
  func settleReads() {
    if !reads.orphaned.isEmpty { promoteWaiters() }
    var next = 0
    while next < reads.finished.count {
      let read = reads.finished[next]
      for id in read.waiters { deliver(read, to: id) }
      startNext(read)
      next += 1
    }
    reads.finished.removeAll(keepingCapacity: true)
    reads.indexes.settle()
    reads.hasNews = false
  }

  private func promoteWaiters() {
    for flight in reads.orphaned {
      let leader = reads.flights.promote(flight) { id in
        calls.edit(id) { $0.read.flight == flight && !$0.read.leads } ?? false
      }
      guard let leader else { continue }
      _ = calls.edit(leader) { $0.read.leads = true }
      starting.append(leader)
    }
    reads.orphaned.removeAll(keepingCapacity: true)
  }

  private func deliver(_ read: FinishedRead, to id: Handle) {
    var isOver = false
    _ = calls.edit(id) { call in
      guard call.read.flight == read.flight, !call.read.leads else { return }
      call.read.flight = .none
      guard !read.message.isEmpty else { return starting.append(id) }
      _ = clients.edit(call.client) { connection in
        if call.read.isSerializable, read.revision < shown(connection) {
          linearize(&call)
          return starting.append(id)
        }
        reads.cache.count(.shares)
        connection.shown = max(connection.shown, read.revision)
        unsafe read.message.withUnsafeBytes { isOver = unsafe answer(&call, &connection, $0) }
        touch(&connection, call.client)
      }
    }
    if isOver { forgetAlone(id) }
  }

  /// Reads that came too late for this one go together.
  private func startNext(_ read: FinishedRead) {
    for id in read.next {
      _ = calls.edit(id) { call in
        guard call.read.flight == read.flight, !call.read.leads else { return }
        let role = unsafe read.key.withUnsafeBytes { key in
          unsafe reads.flights.join(
            id, key: key, hash: read.hash, isLinearizable: !call.read.isSerializable, isShared: true,
            captures: reads.cache.settings.isConsistent)
        }
        call.read.flight = .none
        switch role {
        case .alone: starting.append(id)
        case .leads(let flight):
          call.read.flight = flight
          call.read.leads = true
          starting.append(id)
        case .waits(let flight): call.read.flight = flight
        }
      }
    }
  }

  // MARK: Consistent reads

  /// A consistent read knows how far etcd was: at least so far must be what it is answered.
  ///
  /// - Returns: true if it waits for its keeper.
  func answerConsistently(_ id: Handle, atLeast revision: Int64, mayWait: Bool) -> Bool {
    var step: Step?
    var waits = false
    _ = calls.edit(id) { call in
      guard call.read.stage == .indexing else { return }
      guard let message = unsafe message(call), let query = unsafe RangeQuery(message),
        let key = reads.cache.prepare(query, call.read.principal)
      else { return step = goes(&call, id) }
      _ = clients.edit(call.client) { connection in
        let least = max(revision, shown(connection))
        if let hit = unsafe reads.cache.look(key, shown: least, token: token(of: call), now) {
          step = answer(&call, &connection, hit, isConsistent: true) ? .over : .holds
          touch(&connection, call.client)
        }
      }
      guard step == nil else { return }
      waits = mayWait && reads.cache.mayCatchUp(key, now)
      if waits { return }
      call.read.stage = .asking
      step = join(&call, id, key, isShared: true)
    }
    switch step {
    case .over?: forgetAlone(id)
    case .goes?: starting.append(id)
    case .refused(let code, let words)?: failAlone(id, code, words)
    case .holds?, nil: break
    }
    return waits
  }

  /// The read goes to etcd after all.
  func answerFromEtcd(_ id: Handle) {
    _ = answerConsistently(id, atLeast: .max, mayWait: false)
  }

  // MARK: Timers

  /// Watches of keepers that are wanted are asked now and then whether they live.
  func scheduleProofs() {
    guard reads.proofTimer == .none else { return }
    reads.proofTimer = timers.schedule(
      at: now + Limits.keeperProofs, Token(owner: Owner.core, operation: CoreTimer.proofs, handle: .none))
  }

  func proofsDue() {
    reads.proofTimer = .none
    // Two rounds without a reader, and nobody is asked until one comes.
    let since = reads.lastProofs
    reads.lastProofs = now
    if reads.cache.proveWanted(since: since) || !reads.cache.keepers.isEmpty { scheduleProofs() }
  }
}
