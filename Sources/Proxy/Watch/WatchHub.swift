internal import Reactor

/// A core's side of the watches: its watchers, the groups they are in, and what their homes tell.
///
/// What arrives is noted, and worked off at the end of the turn, when no client is under edit: notices, then the groups that
/// have something new, then the streams of their watchers, until nothing is left.
final class WatchHub {
  unowned let core: ProxyCore
  let watchers: Slab<Watcher>
  var groups: [GroupKey: LocalGroup] = [:]
  var byID: [[UInt32: LocalGroup]]
  var notices: [(notice: WatchNotice, object: AnyObject?, home: Int)] = []
  private var dirtyGroups: [LocalGroup] = []
  private var dirtyStreams: [WatchStream] = []
  private var detours: [Handle] = []
  private var rejoins: [Handle] = []
  private var endings: [(WatchStream, GRPCStatus.Code, [UInt8])] = []
  private var askers: [WatchStream] = []
  var checks: [PermissionCheck.Key: PermissionCheck] = [:]
  var verdicts: [(waiting: [Handle], isAllowed: Bool)] = []
  /// Groups that are over, or have met the live one, and may have watchers that are behind.
  var ended: [LocalGroup] = []
  /// Groups whose home is to be told how far their watchers are.
  private var consumed: [LocalGroup] = []
  /// Groups that may have lost their last watcher.
  private var left: [LocalGroup] = []
  /// Streams that wait for an answer about progress.
  private var questions: [UInt32: WatchStream] = [:]
  var lastQuestion: UInt32 = 0
  private var lastNumber: UInt64 = 0

  init(_ core: ProxyCore, _ watchers: Slab<Watcher>) {
    self.core = core
    self.watchers = watchers
    byID = Array(repeating: [:], count: core.shared.group.links.count)
  }

  var groupCount: Int { groups.count }
  /// Bytes of all histories.
  var historyBytes: Int { groups.values.reduce(0) { $0 + $1.history.byteCount } }

  // MARK: Homes

  /// A home core has told something.
  func arrived(_ notice: WatchNotice, _ object: AnyObject?, from home: Int) {
    notices.append((notice, object, home))
  }

  /// Reads what other homes have published.
  func readRings() {
    for home in byID.indices where home != core.index {
      let ring = core.shared.watchRings[home]
      let reader = core.index < home ? core.index : core.index - 1
      while let count = ring.drain(reader: reader, limit: 256, { take($0, from: home) }), count == 256 {}
    }
  }

  private func take(_ notice: WatchNotice, from home: Int) {
    guard notice.core == WatchNotice.everybody || Int(notice.core) == core.index else { return }
    // What it refers to is kept by its home until the ring's reader has moved on; we keep it from here.
    arrived(notice, notice.referred, from: home)
  }

  func ask(_ home: Int, _ mail: WatchMail) {
    if home == core.index {
      core.watchHome.handle(mail, from: home)
    } else {
      core.send(.watch(mail), to: home)
    }
  }

  // MARK: The end of a turn

  func finishTurn() {
    var rounds = 0
    while hasWork {
      applyVerdicts()
      applyNotices()
      lookAtGroups()
      serveStreams()
      finishMoves()
      rounds += 1
      guard rounds < Limits.watchRoundsATurn else {
        core.outbox.ring(core.index)
        break
      }
    }
    reportConsumed()
    leaveGroups()
  }

  private var hasWork: Bool {
    !notices.isEmpty || !dirtyGroups.isEmpty || !dirtyStreams.isEmpty || !verdicts.isEmpty
      // A client that takes more in the middle of a turn may leave nothing but these.
      || !detours.isEmpty || !rejoins.isEmpty || !endings.isEmpty
  }

  func markDirty(_ group: LocalGroup) {
    guard !group.isDirty else { return }
    group.isDirty = true
    dirtyGroups.append(group)
  }

  func markDirty(_ stream: WatchStream) {
    guard !stream.isDirty else { return }
    stream.isDirty = true
    dirtyStreams.append(stream)
  }

  private func lookAtGroups() {
    var next = 0
    while next < dirtyGroups.count {
      let group = dirtyGroups[next]
      next += 1
      group.isDirty = false
      lookAt(group)
    }
    dirtyGroups.removeAll(keepingCapacity: true)
  }

  /// Whoever can be served gets into the line of its stream.
  private func lookAt(_ group: LocalGroup) {
    if group.hasNew, group.state != nil || group.end != nil {
      group.hasNew = false
      for handle in group.watchers {
        _ = watchers.edit(handle) { watcher in
          if watcher.flags.isDisjoint(with: [.isSettled, .isUnchecked, .isMoving]) {
            settle(&watcher, handle, group)
          }
        }
      }
    }
    for handle in group.watchers { makeReady(handle) }
    handOver(group)
  }

  /// Puts a watcher into the line of its stream if there is something for it.
  func makeReady(_ handle: Handle) {
    _ = watchers.edit(handle) { watcher in
      guard watcher.flags.contains(.isCreated), !watcher.flags.contains(.isReady) else { return }
      let group = unsafe watcher.group
      let hasWork =
        watcher.cursor < group.history.end || group.end != nil || watcher.flags.contains(.owesProgress)
      guard hasWork, watcher.canBeServed else { return }
      unsafe watcher.stream.enqueue(&watcher, handle)
    }
  }

  private func serveStreams() {
    var next = 0
    while next < dirtyStreams.count {
      let stream = dirtyStreams[next]
      next += 1
      stream.isDirty = false
      guard stream.isOpen else { continue }
      _ = core.clients.edit(stream.client) { connection in
        stream.serve(on: &connection)
        core.touch(&connection, stream.client)
      }
    }
    dirtyStreams.removeAll(keepingCapacity: true)
  }

  /// What could not be done while a client was under edit.
  private func finishMoves() {
    let (behind, orphans, ends) = (detours, rejoins, endings)
    detours.removeAll(keepingCapacity: true)
    rejoins.removeAll(keepingCapacity: true)
    endings.removeAll(keepingCapacity: true)
    for handle in behind { detour(handle) }
    for handle in orphans { rejoin(handle) }
    for (stream, code, words) in ends { stream.end(code, String(decoding: words, as: UTF8.self)) }
  }

  /// The watcher needs another group, as soon as its client is not under edit.
  func detourLater(_ handle: Handle) {
    _ = watchers.edit(handle) { $0.flags.insert(.isMoving) }
    detours.append(handle)
  }

  /// The watcher's group has ended; it goes on in another.
  func rejoinLater(_ handle: Handle) {
    _ = watchers.edit(handle) { $0.flags.insert(.isMoving) }
    rejoins.append(handle)
  }

  /// The stream ends with a status.
  func endLater(_ stream: WatchStream, _ code: GRPCStatus.Code, _ words: [UInt8]) {
    endings.append((stream, code, words))
  }

  /// The stream's question could not be answered: once more in a moment.
  func askAgain(_ stream: WatchStream) {
    askers.append(stream)
    core.scheduleWatchTick(after: .milliseconds(100))
  }

  // MARK: Joining

  /// Takes a new watcher in; nil when there is no room.
  func join(_ stream: WatchStream, _ request: WatchCreateRequest, isAlone: Bool) -> Handle? {
    let range = WatchRange(key: request.key, end: request.rangeEnd)
    var key = GroupKey(
      range: range, principal: stream.credentials.principal, requiresLeader: stream.credentials.requiresLeader
    )
    let start = request.startRevision
    let isGone = start > 0 && start < core.shared.compacted.load(ordering: .relaxed)
    if isAlone || range.isEmpty || start < 0 || isGone {
      key.kind = .own(
        nextNumber(), from: start, wantsPrevious: request.wantsPrevious)
    }
    let group = find(key, request.wantsPrevious, stream.credentials.token, start: start)
    guard let handle = watchers.insert(Watcher(stream, group, request)) else {
      if group.watchers.isEmpty { left.append(group) }
      return nil
    }
    enter(group, handle)
    check(handle, stream, group)
    if group.state != nil { markDirty(group) }
    core.scheduleWatchTick()
    return handle
  }

  /// A number that no group of any core has.
  func nextNumber() -> UInt64 {
    lastNumber += 1
    return lastNumber << 16 | UInt64(core.index)
  }

  func find(
    _ key: GroupKey, _ wantsPrevious: Bool, _ token: [UInt8], start: Int64
  ) -> LocalGroup {
    if let group = groups[key] {
      if group.id != 0, group.end == nil, group.learn(token) {
        ask(group.home, .token(group: group.id, token))
      }
      if wantsPrevious, !group.askedPrevious {
        group.askedPrevious = true
        if group.id != 0 {
          ask(group.home, .wantPrevious(group: group.id))
        } else {
          subscribe(group, token, wantsPrevious: true, start: 0)
        }
      }
      return group
    }
    let group = LocalGroup(
      key, home: core.shared.covers.home(of: key.range, among: byID.count), ticket: nextNumber(),
      wantsPrevious: wantsPrevious)
    groups[key] = group
    subscribe(group, token, wantsPrevious: wantsPrevious, start: start)
    return group
  }

  private func subscribe(_ group: LocalGroup, _ token: [UInt8], wantsPrevious: Bool, start: Int64) {
    _ = group.learn(token)
    // A little of the past is worth having at once: whoever has just read the keys wants to go on from there.
    let newest = core.shared.seen.load(ordering: .relaxed)
    let isRecent = start > 0 && start <= newest + 1 && newest - start < Limits.watchHeadStart
    ask(
      group.home,
      .subscribe(
        WatchSubscription(
          key: group.key, ticket: group.ticket, token: token, wantsPrevious: wantsPrevious,
          start: isRecent ? start : 0)))
  }

  private func enter(_ group: LocalGroup, _ handle: Handle) {
    _ = watchers.edit(handle) { watcher in
      unsafe watcher.group = group
      watcher.place = group.watchers.count
      if watcher.flags.contains(.wantsProgress) { group.wantsProgress = true }
    }
    group.watchers.append(handle)
    group.hasNew = true
  }

  /// Takes a watcher out of its group.
  private func leave(_ group: LocalGroup, _ place: Int) {
    let last = group.watchers.removeLast()
    if place < group.watchers.count {
      group.watchers[place] = last
      _ = watchers.edit(last) { $0.place = place }
    }
    guard group.watchers.isEmpty else { return }
    group.wasBroken = core.isLosingClient
    left.append(group)
  }

  /// The watch is over.
  func remove(_ handle: Handle) {
    guard let watcher = watchers.remove(handle) else { return }
    leave(unsafe watcher.group, watcher.place)
  }

  func move(_ handle: Handle, to group: LocalGroup) {
    let old: (LocalGroup, Int)? = watchers.edit(handle) { (unsafe $0.group, $0.place) }
    if let (from, place) = old { leave(from, place) }
    enter(group, handle)
  }

  /// Its group can serve a watcher, or has ended: where it begins, or goes on.
  func settle(_ watcher: inout Watcher, _ handle: Handle, _ group: LocalGroup) {
    watcher.flags.insert(.isSettled)
    if group.end == nil {
      if watcher.floor == 0, watcher.start == 0 {
        // Not older than anything that a client has been told.
        let newest = group.key.isLive ? core.shared.seen.load(ordering: .relaxed) : 0
        watcher.floor = max(group.next, newest + 1)
      }
      place(&watcher, group)
    } else if !group.key.isShared, watcher.floor == 0 {
      watcher.floor = group.history.from
    }
    guard !watcher.flags.contains(.isCreated) else { return }
    let stream = unsafe watcher.stream
    stream.hasSettled = true
    markDirty(stream)
  }

  /// Where in the history the watcher goes on; before its beginning if that does not reach back far enough.
  func place(_ watcher: inout Watcher, _ group: LocalGroup) {
    let isHeld = watcher.floor >= group.reach(wantsPrevious: watcher.flags.contains(.wantsPrevious))
    // What is still to come will bring what was there before, or be found not to.
    let isAhead = watcher.floor >= group.next && watcher.floor >= group.history.from
    // A watch of one's own begins where etcd lets it begin.
    let isAtStart = !group.key.isShared && !watcher.flags.contains(.isCreated)
    watcher.cursor =
      isHeld || isAhead || isAtStart ? group.history.find(watcher.floor) : group.history.base - 1
    note(group, watcher.cursor)
  }

  // MARK: The past

  /// A watcher of the group has come so far: what brings the past may go on.
  func note(_ group: LocalGroup, _ cursor: Int) {
    guard group.reached(cursor), !group.isConsumed else { return }
    group.isConsumed = true
    consumed.append(group)
  }

  private func reportConsumed() {
    guard !consumed.isEmpty else { return }
    for group in consumed {
      group.isConsumed = false
      let bytes = group.end == nil ? group.takeReport() : 0
      if bytes > 0 { ask(group.home, .consumed(group: group.id, bytes)) }
    }
    consumed.removeAll(keepingCapacity: true)
  }

  /// Nobody takes what the group has brought: it goes, and who wakes up asks for it anew.
  private func giveUp(_ group: LocalGroup) {
    replace(group)
    group.history.restart(from: group.next)
  }

  /// The group is not needed any more: who is through with it joins the live one.
  func replace(_ group: LocalGroup) {
    group.end = WatchEnd(header: group.header, .replaced)
    ask(group.home, .unsubscribe(group: group.id, mayComeBack: false))
    forget(group)
    ended.append(group)
    markDirty(group)
  }

  // MARK: Leaving

  private func leaveGroups() {
    guard !left.isEmpty else { return }
    for group in left where group.watchers.isEmpty {
      if group.catchUps.contains(where: { !$0.watchers.isEmpty && $0.end == nil }) { continue }
      if group.end == nil, groups[group.key] === group {
        guard group.id != 0 else { continue }
        ask(group.home, .unsubscribe(group: group.id, mayComeBack: group.wasBroken))
      }
      forget(group)
      if group.end != nil { ended.removeAll { $0 === group } }
      group.target?.catchUps.removeAll { $0 === group }
    }
    left = left.filter { $0.watchers.isEmpty && $0.end == nil && groups[$0.key] === $0 }
  }

  func forget(_ group: LocalGroup) {
    if groups[group.key] === group { groups[group.key] = nil }
    if byID[group.home][group.id] === group { byID[group.home][group.id] = nil }
  }

  // MARK: Progress

  func oweProgress(_ group: LocalGroup) {
    for handle in group.watchers {
      _ = watchers.edit(handle) { watcher in
        if watcher.flags.contains(.wantsProgress) { watcher.flags.insert(.owesProgress) }
      }
    }
  }

  /// Asks the homes of the stream's groups how far they are.
  ///
  /// - Returns: how many will answer, and the number of the first question.
  func askProgress(_ stream: WatchStream) -> (answers: Int, first: UInt32) {
    let first = lastQuestion &+ 1
    var homes: Set<Int> = []
    stream.forEachWatcher { watcher in homes.insert(unsafe watcher.group.home) }
    let isEmpty = homes.isEmpty
    if isEmpty { homes.insert(core.index) }
    for home in homes {
      repeat { lastQuestion &+= 1 } while questions[lastQuestion] != nil
      questions[lastQuestion] = stream
      ask(
        home,
        .progress(
          WatchQuestion(
            number: lastQuestion, principal: stream.credentials.principal,
            requiresLeader: stream.credentials.requiresLeader,
            token: stream.credentials.token, isEmpty: isEmpty)))
    }
    return (homes.count, first)
  }

  func answered(_ number: UInt32, _ state: WatchState?) {
    guard let stream = questions.removeValue(forKey: number), stream.isOpen else { return }
    stream.progressAnswered(state?.header)
    markDirty(stream)
  }

  /// Forgets what the stream has asked.
  func forgetQuestions(of stream: WatchStream) {
    for (number, asker) in questions where asker === stream { questions[number] = nil }
  }

  // MARK: Now and then

  func tick() {
    core.shared.counters.set(.watchers, UInt64(watchers.count), core: core.index)
    let again = askers
    askers.removeAll()
    for stream in again { stream.repeatQuestion() }
  }

  /// Once a second, through all groups.
  func lookThrough(olderThan time: Instant) {
    for group in groups.values where !group.trim(before: time, most: core.historyLimit) { giveUp(group) }
    for group in ended { _ = group.trim(before: time, most: core.historyLimit) }
  }
}
