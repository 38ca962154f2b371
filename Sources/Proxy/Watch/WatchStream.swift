internal import Reactor

/// A client's watch stream: its requests in their order, and what its watchers are sent.
final class WatchStream: ClientSession {
  /// What the client has asked and has not been done, because something before it waits.
  private enum Step {
    case create(Handle)
    case cancel(Int64)
    case progress
  }

  let principal: Principal
  let token: [UInt8]
  let requiresLeader: Bool
  /// The client wants no watch shared (`ringway-bypass`).
  private let isAlone: Bool
  private unowned let hub: WatchHub

  // From the client.
  private var inbox: ByteBuffer
  private var steps: [Step] = []
  private var stepsDone = 0
  private var owedCredit = 0
  /// One of its watchers can be created, or not, since the steps were last looked at.
  var hasSettled = false

  // To the client.
  var isDirty = false
  private var isBlocked = false
  /// Messages that go before events.
  private var control: ByteBuffer
  /// A message that has begun to leave.
  private var partial: Partial?
  private var firstReady = Handle.none
  private var lastReady = Handle.none
  private var watchers: [Int64: Handle] = [:]
  private var nextID: Int64 = 0
  /// Answers about progress that are still to come, the least of those that came, and whether it is due.
  private var awaitedAnswers = 0
  private var firstQuestion: UInt32 = 0
  private var progress: ResponseHeader?
  private var isProgressDue = false
  private var failedAnswers = false

  /// A message that the client's window has cut: what is left of it is made again from the block.
  private struct Partial {
    let block: WatchBlock
    let variant: WatchBlock.Variant
    let part: Int
    let id: Int64
    var sent: Int
  }

  init(
    _ hub: WatchHub, client: Handle, stream: UInt32, principal: Principal, token: [UInt8],
    requiresLeader: Bool, isAlone: Bool
  ) {
    self.hub = hub
    self.principal = principal
    self.token = token
    self.requiresLeader = requiresLeader
    self.isAlone = isAlone
    inbox = ByteBuffer(hub.core.pool)
    control = ByteBuffer(hub.core.pool)
    super.init(hub.core, client: client, stream: stream)
  }

  // MARK: From the client

  override func received(_ bytes: UnsafeRawBufferPointer, on connection: inout ClientConnection) -> Int {
    unsafe inbox.append(bytes)
    owedCredit += bytes.count
    while isOpen, let length = unsafe GRPCMessage.complete(inbox.bytes) {
      let frame = unsafe inbox.bytes
      guard unsafe frame[0] == 0 else {
        end(.unimplemented, "grpc: Decompressor is not installed for grpc-encoding", on: &connection)
        return 0
      }
      unsafe take(
        UnsafeRawBufferPointer(rebasing: frame[GRPCMessage.prefix..<length]), on: &connection)
      if isOpen { inbox.consume(length) }
    }
    guard isOpen else { return 0 }
    hub.markDirty(self)
    return credit()
  }

  /// A client that asks faster than it reads has to wait.
  private func credit() -> Int {
    guard steps.count - stepsDone < Limits.watchStepsWaiting, control.count < Limits.watchControlBytes else {
      return 0
    }
    defer { owedCredit = 0 }
    return owedCredit
  }

  private func take(_ message: UnsafeRawBufferPointer, on connection: inout ClientConnection) {
    guard let namespace = core.shared.namespace else { return unsafe take(plain: message, on: &connection) }
    var inside = ByteBuffer(core.pool)
    switch unsafe namespace.request(.watch, message, into: &inside) {
    case .rewritten: unsafe take(plain: inside.bytes, on: &connection)
    case .unchanged, .needsLeaseCheck: unsafe take(plain: message, on: &connection)
    case .refused(let code, let text): end(code, "\(text)", on: &connection)
    case .malformed: end(.internal, Self.unreadable, on: &connection)
    }
  }

  private static let unreadable = "grpc: error unmarshalling request: proto: illegal wireType"

  private func take(plain message: UnsafeRawBufferPointer, on connection: inout ClientConnection) {
    guard let request = unsafe try? WatchRequest(message) else {
      return end(.internal, Self.unreadable, on: &connection)
    }
    switch request {
    case .create(let create):
      let isAlone = isAlone || core.isBypassed(create.key)
      guard let handle = hub.join(self, create, isAlone: isAlone) else {
        return end(.resourceExhausted, "too many watches; try again later", on: &connection)
      }
      core.shared.counters.add(.watchersJoined, core: core.index)
      steps.append(.create(handle))
    case .cancel(let id): steps.append(.cancel(id))
    case .progress: steps.append(.progress)
    case .unknown: break
    }
    walk()
  }

  /// Does what can be done, in the order in which it was asked.
  private func walk() {
    while stepsDone < steps.count {
      switch steps[stepsDone] {
      case .create(let handle): guard create(handle) else { return }
      case .cancel(let id): cancel(id)
      case .progress: if awaitedAnswers == 0, !isProgressDue { askProgress() }
      }
      stepsDone += 1
    }
    steps.removeAll(keepingCapacity: steps.count < 64)
    stepsDone = 0
  }

  /// Says `created`, with the number that etcd would give. False while it cannot be said.
  private func create(_ handle: Handle) -> Bool {
    var refusal: WatchEnd?
    var header = ResponseHeader()
    var wish: Int64 = 0
    var isSettled = false
    var isMoving = false
    _ = hub.watchers.edit(handle) { watcher in
      isSettled = watcher.flags.contains(.isSettled)
      isMoving = watcher.flags.contains(.isMoving)
      wish = watcher.id
      let group = unsafe watcher.group
      header = group.header
      if group.end != nil, group.state == nil || group.history.count == 0 { refusal = group.end }
      let newest = core.shared.seen.load(ordering: .relaxed)
      header.revision = watcher.start == 0 ? watcher.floor - 1 : max(newest, group.next - 1)
    }
    guard isSettled else { return false }
    if let refusal, case .status(let code, let words) = refusal.reason {
      hub.endLater(self, code, words)
      return true
    }
    if let refusal, mayTryItself(refusal) {
      if !isMoving { hub.rejoinLater(handle) }
      return false
    }
    if let refusal, refusal.isRefusal {
      hub.remove(handle)
      write(refusal, wish, isCreated: true)
      return true
    }
    if wish != 0, watchers[wish] != nil {
      hub.remove(handle)
      writeDuplicate(header)
      return true
    }
    var id = wish
    if wish == 0 {
      while watchers[nextID] != nil { nextID += 1 }
      id = nextID
      nextID += 1
    }
    watchers[id] = handle
    _ = hub.watchers.edit(handle) { watcher in
      watcher.id = id
      watcher.flags.insert(.isCreated)
    }
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, id)
      output.appendField(3, true)
    }
    hub.makeReady(handle)
    return true
  }

  /// The group's tokens are refused, but not ours.
  private func mayTryItself(_ end: WatchEnd) -> Bool {
    guard case .refused(_, _, let tokens) = end.reason else { return false }
    return !tokens.contains(token)
  }

  private func cancel(_ id: Int64) {
    guard let handle = watchers.removeValue(forKey: id) else { return }
    var header = ResponseHeader()
    _ = hub.watchers.edit(handle) { watcher in
      let group = unsafe watcher.group
      header = group.header
      header.revision = max(group.next - 1, header.revision)
    }
    takeOut(handle)
    hub.remove(handle)
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, id)
      output.appendField(4, true)
    }
  }

  override func closed() {
    hub.forgetQuestions(of: self)
    for handle in watchers.values { hub.remove(handle) }
    for step in steps[stepsDone...] {
      if case .create(let handle) = step { hub.remove(handle) }
    }
    watchers.removeAll()
    steps.removeAll()
    stepsDone = 0
    firstReady = .none
    lastReady = .none
    partial = nil
    control.removeAll()
    inbox.removeAll()
  }

  func forEachWatcher(_ body: (inout Watcher) -> Void) {
    for handle in watchers.values { _ = hub.watchers.edit(handle, body) }
  }

  // MARK: What goes before events

  /// Writes a message for which there is room later, if not now.
  private func writeControl(_ write: (inout ByteBuffer) -> Void) {
    let start = control.count
    GRPCMessage.begin(&control)
    write(&control)
    GRPCMessage.end(&control, from: start)
  }

  /// etcd's own verdict on a watch.
  private func write(_ end: WatchEnd, _ id: Int64, isCreated: Bool) {
    let verdict = end.verdict
    writeControl { output in
      output.append(end.header.encoded)
      output.appendField(2, verdict.hasNoID && isCreated ? -1 : id)
      output.appendField(3, isCreated)
      output.appendField(4, true)
      output.appendField(5, verdict.compactRevision)
      output.appendField(6, verdict.reason)
    }
  }

  /// In etcd's words (mvcc/watcher.go: ErrWatcherDuplicateID).
  private func writeDuplicate(_ header: ResponseHeader) {
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, -1)
      output.appendField(3, true)
      output.appendField(4, true)
      output.appendField(6, "mvcc: duplicate watch ID provided on the WatchStream")
    }
  }

  // MARK: Progress

  private func askProgress() {
    progress = nil
    failedAnswers = false
    (awaitedAnswers, firstQuestion) = hub.askProgress(self)
  }

  /// One of the homes has answered; nil when it could not.
  func progressAnswered(_ header: ResponseHeader?) {
    guard awaitedAnswers > 0 else { return }
    awaitedAnswers -= 1
    if let header {
      if header.revision < progress?.revision ?? .max { progress = header }
    } else {
      failedAnswers = true
    }
    guard awaitedAnswers == 0 else { return }
    // An outage came between: asked again, from the beginning.
    if failedAnswers { return hub.askAgain(self) }
    isProgressDue = progress != nil
  }

  /// Asks once more what could not be answered.
  func repeatQuestion() {
    guard isOpen, awaitedAnswers == 0, !isProgressDue else { return }
    askProgress()
  }

  // MARK: The line

  /// Puts a watcher at the end of the line.
  func enqueue(_ watcher: inout Watcher, _ handle: Handle) {
    watcher.flags.insert(.isReady)
    watcher.nextReady = .none
    if lastReady == .none {
      firstReady = handle
    } else {
      _ = hub.watchers.edit(lastReady) { $0.nextReady = handle }
    }
    lastReady = handle
    if !isBlocked { hub.markDirty(self) }
  }

  private func dequeue() -> Handle? {
    guard firstReady != .none else { return nil }
    let handle = firstReady
    var next = Handle.none
    _ = hub.watchers.edit(handle) { watcher in
      next = watcher.nextReady
      watcher.flags.remove(.isReady)
      watcher.nextReady = .none
    }
    firstReady = next
    if next == .none { lastReady = .none }
    return handle
  }

  /// Takes a watcher out of the line, wherever it stands.
  private func takeOut(_ handle: Handle) {
    guard hub.watchers.edit(handle, { $0.flags.contains(.isReady) }) == true else { return }
    var before = Handle.none
    var current = firstReady
    while current != .none {
      let next = hub.watchers.edit(current) { $0.nextReady } ?? .none
      if current == handle {
        if before == .none {
          firstReady = next
        } else {
          _ = hub.watchers.edit(before) { $0.nextReady = next }
        }
        if next == .none { lastReady = before }
        return
      }
      before = current
      current = next
    }
  }

  // MARK: To the client

  override func writable(on connection: inout ClientConnection) {
    isBlocked = false
    serve(on: &connection)
  }

  /// Sends what there is and the client takes.
  func serve(on connection: inout ClientConnection) {
    if hasSettled {
      hasSettled = false
      walk()
    }
    guard !isBlocked, isOpen, hasWork else { return }
    sendHead(on: &connection)
    guard var run = connection.transport.http2.beginData(stream) else { return }
    let isAll = write(&run, &connection)
    isBlocked = !isAll
    connection.transport.http2.endData(run, isBlocked: !isAll)
    guard owedCredit > 0 else { return }
    let credited = credit()
    if credited > 0 { connection.transport.http2.credit(stream, credited) }
  }

  private var hasWork: Bool {
    !control.isEmpty || partial != nil || firstReady != .none || isProgressDue
  }

  /// False when there is more than the client takes.
  private func write(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    while true {
      guard finishPartial(&run, &connection), sendControl(&run, &connection) else { return false }
      guard let handle = dequeue() else { break }
      switch serve(handle, &run, &connection) {
      case .done: continue
      case .more: _ = hub.watchers.edit(handle) { enqueue(&$0, handle) }
      case .detour: hub.detourLater(handle)
      case .over(let end): over(handle, end)
      case .blocked:
        _ = hub.watchers.edit(handle) { enqueueFirst(&$0, handle) }
        return false
      }
      if !isOpen { return true }
    }
    guard isProgressDue, stepsDone == steps.count || !waitsForCreate, let header = progress else {
      return true
    }
    isProgressDue = false
    progress = nil
    guard isCovered else {
      hub.askAgain(self)
      return true
    }
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, -1)
    }
    return sendControl(&run, &connection)
  }

  /// The answer speaks of all watchers: their groups stood before the question was asked, and nobody is on the way to another
  /// one, or behind in what has come.
  private var isCovered: Bool {
    var isCovered = true
    forEachWatcher { watcher in
      let group = unsafe watcher.group
      if group.stoodAfter >= firstQuestion || watcher.cursor != group.history.end || !watcher.canBeServed {
        isCovered = false
      }
    }
    return isCovered
  }

  /// A create waits for its group.
  private var waitsForCreate: Bool {
    if case .create = steps[stepsDone] { return true }
    return false
  }

  private func enqueueFirst(_ watcher: inout Watcher, _ handle: Handle) {
    watcher.flags.insert(.isReady)
    watcher.nextReady = firstReady
    firstReady = handle
    if lastReady == .none { lastReady = handle }
  }

  private func sendControl(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    guard !control.isEmpty else { return true }
    let size = min(control.count, run.room)
    if size > 0 {
      unsafe connection.transport.http2.appendData(
        &run, UnsafeRawBufferPointer(rebasing: control.bytes[..<size]))
      control.consume(size)
    }
    return control.isEmpty
  }

  /// What became of a watcher's turn.
  private enum Turn {
    case done, more, blocked, detour
    case over(WatchEnd)
  }

  /// Sends a watcher's blocks, at most some before the next one has its turn.
  private func serve(_ handle: Handle, _ run: inout DataRun, _ connection: inout ClientConnection) -> Turn {
    var turn = Turn.done
    _ = hub.watchers.edit(handle) { watcher in
      let group = unsafe watcher.group
      guard watcher.canBeServed else { return }
      var blocks = 0
      while watcher.cursor != group.history.end {
        if watcher.cursor < group.history.base {
          turn = .detour
          return
        }
        if blocks == Limits.watchBlocksATurn {
          turn = .more
          return
        }
        let block = group.history[watcher.cursor]
        if block.last >= watcher.floor {
          if watcher.flags.contains(.wantsPrevious), !block.hasPrevious {
            turn = .detour
            return
          }
          let cut = block.first < watcher.floor ? block.cut(from: watcher.floor) : block
          if let cut, !send(cut, &watcher, &run, &connection) {
            turn = .blocked
            return
          }
          watcher.floor = block.last + 1
          connection.shown = max(connection.shown, block.header.revision)
        }
        watcher.cursor += 1
        blocks += 1
        // The rest of a large message goes before everything else.
        if partial != nil {
          turn = .blocked
          return
        }
      }
      if watcher.flags.contains(.owesProgress) { sayProgress(&watcher, group) }
      if let end = group.end { turn = .over(end) }
    }
    return turn
  }

  private func sayProgress(_ watcher: inout Watcher, _ group: LocalGroup) {
    watcher.flags.remove(.owesProgress)
    guard group.progressRevision + 1 >= group.next, group.progressRevision + 1 >= watcher.floor else {
      return
    }
    watcher.floor = group.progressRevision + 1
    var header = group.header
    header.revision = group.progressRevision
    let id = watcher.id
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, id)
    }
  }

  /// Sends a block to a watcher; false when it cannot even begin.
  private func send(
    _ block: WatchBlock, _ watcher: inout Watcher, _ run: inout DataRun, _ connection: inout ClientConnection
  ) -> Bool {
    let variant = block.relevant(watcher.variant)
    guard variant.isEmpty else {
      return sendVariant(block, variant, &watcher, &run, &connection)
    }
    guard run.room > 0 else { return false }
    let whole = unsafe WatchMessage(block.bytes, id: watcher.id)
    core.shared.counters.add(.watchDeliveries, core: core.index)
    if whole.write(&run, &connection.transport.http2) { return true }
    partial = Partial(block: block, variant: [], part: 0, id: watcher.id, sent: 0)
    _ = finishPartial(&run, &connection)
    return true
  }

  private func sendVariant(
    _ block: WatchBlock, _ variant: WatchBlock.Variant, _ watcher: inout Watcher, _ run: inout DataRun,
    _ connection: inout ClientConnection
  ) -> Bool {
    let encoding = block.encoding(variant)
    guard !encoding.messages.isEmpty else { return true }
    guard run.room > 0 else { return false }
    core.shared.counters.add(.watchDeliveries, core: core.index)
    partial = Partial(block: block, variant: variant, part: 0, id: watcher.id, sent: 0)
    _ = finishPartial(&run, &connection)
    return true
  }

  /// Sends the rest of a message that has begun to leave, and of its parts; false while some is left.
  private func finishPartial(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    while var rest = partial {
      let parts = rest.variant.isEmpty ? 1 : rest.block.encoding(rest.variant).messages.count
      let isAll: Bool
      if rest.variant.isEmpty {
        isAll = unsafe WatchMessage(rest.block.bytes, id: rest.id).write(
          &run, &connection.transport.http2, from: &rest.sent)
      } else {
        isAll = unsafe rest.block.encoding(rest.variant).messages[rest.part].withUnsafeBytes { body in
          unsafe WatchMessage(body, id: rest.id).write(&run, &connection.transport.http2, from: &rest.sent)
        }
      }
      guard isAll else {
        partial = rest
        return false
      }
      partial =
        rest.part + 1 < parts
        ? Partial(block: rest.block, variant: rest.variant, part: rest.part + 1, id: rest.id, sent: 0) : nil
    }
    return true
  }

  // MARK: Ends

  /// A watcher has had all that its group had, and the group has ended.
  private func over(_ handle: Handle, _ end: WatchEnd) {
    switch end.reason {
    case .replaced: return hub.rejoinLater(handle)
    case .status(let code, let words): return hub.endLater(self, code, words)
    case .canceled, .refused:
      if mayTryItself(end) { return hub.rejoinLater(handle) }
      let revision = end.verdict.compactRevision
      var id: Int64 = 0
      var floor: Int64 = 0
      _ = hub.watchers.edit(handle) { (id, floor) = ($0.id, $0.floor) }
      // Only who still wants what has been compacted is concerned.
      if revision > 0, floor >= revision { return hub.rejoinLater(handle) }
      watchers[id] = nil
      hub.remove(handle)
      write(end, id, isCreated: false)
    }
  }
}

/// A message for one watcher: gRPC's prefix, what all watchers get, the watch's number.
@safe struct WatchMessage {
  private let body: UnsafeRawBufferPointer
  private let id: Int64
  private let idBytes: Int

  init(_ body: UnsafeRawBufferPointer, id: Int64) {
    unsafe self.body = body
    self.id = id
    idBytes = id == 0 ? 0 : 1 + ProtoSize.varint(UInt64(bitPattern: id))
  }

  private var length: Int { unsafe body.count + idBytes }

  /// Writes it in one piece if there is room in the frame.
  func write(_ run: inout DataRun, _ http2: inout HTTP2Session) -> Bool {
    unsafe http2.fillData(&run, GRPCMessage.prefix + length) { room in
      unsafe writePrefix(room)
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: room[GRPCMessage.prefix...])
      unsafe rest.copyMemory(from: body)
      unsafe writeID(UnsafeMutableRawBufferPointer(rebasing: rest[body.count...]))
      return GRPCMessage.prefix + length
    }
  }

  /// Writes what fits, from byte `sent` on; true when that was all.
  func write(_ run: inout DataRun, _ http2: inout HTTP2Session, from sent: inout Int) -> Bool {
    unsafe withUnsafeTemporaryAllocation(byteCount: 16, alignment: 8) { edge in
      unsafe writePrefix(edge)
      unsafe Self.append(
        UnsafeRawBufferPointer(rebasing: edge[..<GRPCMessage.prefix]), at: 0, &run, &http2, &sent)
      unsafe Self.append(body, at: GRPCMessage.prefix, &run, &http2, &sent)
      unsafe writeID(edge)
      unsafe Self.append(
        UnsafeRawBufferPointer(rebasing: edge[..<idBytes]), at: GRPCMessage.prefix + body.count, &run,
        &http2, &sent)
    }
    return sent == GRPCMessage.prefix + length
  }

  /// Appends what is left of a piece that lies at `start` in the message.
  private static func append(
    _ piece: UnsafeRawBufferPointer, at start: Int, _ run: inout DataRun, _ http2: inout HTTP2Session,
    _ sent: inout Int
  ) {
    guard sent >= start, sent < start + piece.count else { return }
    let rest = unsafe UnsafeRawBufferPointer(rebasing: piece[(sent - start)...])
    let size = min(rest.count, run.room)
    unsafe http2.appendData(&run, UnsafeRawBufferPointer(rebasing: rest[..<size]))
    sent += size
  }

  private func writePrefix(_ room: UnsafeMutableRawBufferPointer) {
    unsafe room[0] = 0
    unsafe room.storeBytes(
      of: UInt32(truncatingIfNeeded: length).bigEndian, toByteOffset: 1, as: UInt32.self)
  }

  private func writeID(_ room: UnsafeMutableRawBufferPointer) {
    guard idBytes > 0 else { return }
    unsafe room[0] = 2 << 3
    var rest = UInt64(bitPattern: id)
    for place in 1..<idBytes {
      unsafe room[place] = UInt8(truncatingIfNeeded: rest & 0x7F) | (place + 1 < idBytes ? 0x80 : 0)
      rest >>= 7
    }
  }
}
