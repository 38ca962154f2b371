internal import Reactor

/// A client's watch stream: its requests in their order, and what its watchers are sent.
final class WatchStream: ClientSession {
  /// What the client has asked and has not been done, because something before it waits.
  enum Step {
    case create(Handle)
    case cancel(Int64)
    case progress
  }

  let credentials: Credentials
  /// The client wants no watch shared (`ringway-bypass`).
  private let isAlone: Bool
  // Strong, unlike the core: a count that goes up and down for each event would cost more than all the rest.
  let hub: WatchHub
  /// Messages with events sent and not counted yet.
  var deliveries: UInt64 = 0

  // From the client.
  private var inbox: ByteBuffer
  var steps: [Step] = []
  var stepsDone = 0
  var owedCredit = 0
  /// One of its watchers can be created, or not, since the steps were last looked at.
  var hasSettled = false

  // To the client.
  var isDirty = false
  var isBlocked = false
  /// Messages that go before events.
  var control: ByteBuffer
  /// A message that has begun to leave.
  var partial: Partial?
  var firstReady = Handle.none
  var lastReady = Handle.none
  var watchers: [Int64: Handle] = [:]
  private var nextID: Int64 = 0
  /// Answers about progress that are still to come, the least of those that came, and whether it is due.
  private var awaitedAnswers = 0
  var firstQuestion: UInt32 = 0
  var progress: ResponseHeader?
  var isProgressDue = false
  private var failedAnswers = false
  /// A status is about to end it.
  private var isEnding = false

  /// A message that the client's window has cut: what is left of it is made again from the block.
  struct Partial {
    let block: WatchBlock
    let variant: WatchBlock.Variant
    let part: Int
    let id: Int64
    var sent: Int
  }

  init(
    _ hub: WatchHub, client: Handle, stream: UInt32, _ credentials: Credentials, isAlone: Bool
  ) {
    self.hub = hub
    self.credentials = credentials
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
    if let length = unsafe GRPCMessage.announced(inbox.bytes), length > Limits.watchRequestBytes {
      end(
        .resourceExhausted,
        "grpc: received message larger than max (\(length) vs. \(Limits.watchRequestBytes))", on: &connection)
      return 0
    }
    hub.markDirty(self)
    return credit()
  }

  override var heldBytes: Int { inbox.count + control.count }

  override var needsGuard: Bool { watchers.isEmpty && stepsDone == steps.count }

  /// A client that asks faster than it reads has to wait.
  func credit() -> Int {
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
  func walk() {
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
    var end: WatchEnd?
    var isShared = true
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
      end = group.end
      isShared = group.key.isShared
      let newest = core.shared.seen.load(ordering: .relaxed)
      header.revision = watcher.start == 0 ? watcher.floor - 1 : max(newest, group.next - 1)
    }
    guard isSettled, !isEnding else { return false }
    if let end, !isShared || !mustRejoin(end) {
      if case .status(let code, let words) = end.reason {
        // No other `created` may follow: the client would take it for the answer to this.
        endLater(code, words)
        return false
      }
      if end.isRefusal {
        hub.remove(handle)
        write(end, wish, isCreated: true)
        return true
      }
    } else if end != nil {
      // It never was in a group that has ended before its first word; it begins with the next one.
      if !isMoving { hub.rejoinLater(handle) }
      return false
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

  /// Ends with a status, once the client is not under edit.
  func endLater(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    guard !isEnding else { return }
    isEnding = true
    hub.endLater(self, code, words)
  }

  /// What the end of a group means for a watch that has not been created: nothing, unless etcd refuses it, or ends the stream.
  private func mustRejoin(_ end: WatchEnd) -> Bool {
    switch end.reason {
    case .status: false
    case .replaced: true
    case .canceled, .refused: mayTryItself(end) || !end.isRefusal
    }
  }

  /// The group's tokens are refused, but not ours.
  func mayTryItself(_ end: WatchEnd) -> Bool {
    guard case .refused(_, _, let tokens) = end.reason else { return false }
    return !tokens.contains(credentials.token)
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
  func writeControl(_ write: (inout ByteBuffer) -> Void) {
    let start = control.count
    GRPCMessage.begin(&control)
    write(&control)
    GRPCMessage.end(&control, from: start)
  }

  /// etcd's own verdict on a watch.
  func write(_ end: WatchEnd, _ id: Int64, isCreated: Bool) {
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

  func dequeue() -> Handle? {
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

  override func writable(on connection: inout ClientConnection) {
    isBlocked = false
    serve(on: &connection)
  }
}
