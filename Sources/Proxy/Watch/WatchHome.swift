internal import Reactor

/// The groups whose home is this core: their watches upstream, and what they bring, for all cores.
final class WatchHome {
  unowned let core: ProxyCore
  let cores: Int
  private(set) var groups: [GroupKey: HomeGroup] = [:]
  private var byID: [UInt32: HomeGroup] = [:]
  private var lastID: UInt32 = 0
  private(set) var feeds: [WatchFeed.Key: WatchFeed] = [:]
  /// Groups without a stream, which get one when it is time.
  private(set) var homeless: [HomeGroup] = []
  /// Groups that wait for their watchers, and have no watch upstream until then.
  var paused: [HomeGroup] = []
  private var retryAt = Instant(nanoseconds: 0)
  private var failures = 0
  /// Covers that are not made again before.
  var uncovered: [GroupKey: Instant] = [:]
  /// Groups that nobody wanted when they were last looked at.
  private var idle: [HomeGroup] = []
  /// Which prefixes have many ranges, which are covered because of that, and when the last one was.
  var choice: CoverChoice
  var automatic: Set<GroupKey> = []
  var coveredAt = Instant(nanoseconds: 0)
  /// Questions for progress that several streams are asked.
  var parts: [UInt32: Parts] = [:]
  var lastPart: UInt32 = 0

  // What is told to other cores.
  private let ring: BroadcastRing<WatchNotice>
  private var published: UInt64 = 0
  /// Notices that the ring had no room for, and what those in the ring refer to.
  private var unpublished: [(notice: WatchNotice, object: AnyObject?)] = []
  private var kept: [(until: UInt64, object: AnyObject)] = []
  private var keptGone = 0

  init(_ core: ProxyCore) {
    self.core = core
    cores = core.shared.group.links.count
    ring = core.shared.watchRings[core.index]
    choice = CoverChoice(
      from: core.options.coverFrom, namespace: core.shared.namespace?.prefix.count ?? 0)
  }

  /// Bytes of all histories.
  var historyBytes: Int { groups.values.reduce(0) { $0 + $1.history.byteCount } }
  /// There is something to look after.
  var isBusy: Bool { !groups.isEmpty || !feeds.isEmpty || !unpublished.isEmpty || kept.count > keptGone }

  // MARK: Asked by cores

  func handle(_ mail: WatchMail, from sender: Int) {
    switch mail {
    case .subscribe(let subscription): subscribe(subscription, sender)
    case .unsubscribe(let id, let mayComeBack): if let group = byID[id] { leave(group, sender, mayComeBack) }
    case .token(let id, let token): if let group = byID[id] { learn(token, group) }
    case .wantPrevious(let id): if let group = byID[id] { addPrevious(group) }
    case .consumed(let id, let bytes): if let group = byID[id] { consumed(group, bytes) }
    case .progress(let question): ask(question, sender)
    }
    core.scheduleWatchTick()
  }

  private func leave(_ group: HomeGroup, _ sender: Int, _ mayComeBack: Bool) {
    group.remove(sender, now: core.now, grace: mayComeBack ? Limits.groupGrace : Limits.groupGraceAfterCancel)
    noteIdle(group)
  }

  /// The group is forgotten when its time is over, if nobody wants it until then.
  func noteIdle(_ group: HomeGroup) {
    guard !group.isWanted else { return }
    group.idleSince = core.now
    idle.append(group)
    core.scheduleWatchTick(after: group.grace)
  }

  private func learn(_ token: [UInt8], _ group: HomeGroup) {
    group.learn(token)
    group.lane?.cover.learn(token)
  }

  private func subscribe(_ subscription: WatchSubscription, _ sender: Int) {
    if let group = groups[subscription.key] {
      group.add(sender)
      learn(subscription.token, group)
      if subscription.wantsPrevious { addPrevious(group) }
      return welcome(group, subscription, sender)
    }
    let cover = cover(for: subscription) ?? automaticCover(of: subscription.key)
    let group = make(subscription)
    group.add(sender)
    if let cover { join(group, cover, start: subscription.start) }
    count(group)
    learn(subscription.token, group)
    welcome(group, subscription, sender)
    if cover == nil { place(group) }
  }

  func make(_ subscription: WatchSubscription) -> HomeGroup {
    lastID &+= 1
    let group = HomeGroup(lastID, subscription, cores: cores, now: core.now, core.pool)
    groups[group.key] = group
    byID[group.id] = group
    return group
  }

  private func welcome(_ group: HomeGroup, _ subscription: WatchSubscription, _ sender: Int) {
    if let lane = group.lane { group.keepUp(with: lane.cover) }
    let hasStood = group.history.from != 0
    let snapshot = WatchSnapshot(
      key: group.key, ticket: subscription.ticket, cover: group.lane?.cover.id ?? 0,
      state: hasStood ? group.state : nil,
      blocks: hasStood ? group.history.blocks : [])
    tell(.joined, group, snapshot, to: sender)
  }

  /// Makes the watch anew at its position, with what was there before.
  func addPrevious(_ group: HomeGroup) {
    guard !group.wantsPrevious else { return }
    group.wantsPrevious = true
    if let lane = group.lane { return addPrevious(lane.cover) }
    guard let feed = group.feed else { return }
    feed.remove(group, isComingBack: true)
    feed.add(group)
  }

  // MARK: Streams

  /// Gives the group a stream under the newest of its tokens that etcd has not refused.
  func place(_ group: HomeGroup) {
    guard let token = group.untriedToken ?? group.tokens.last else { return }
    let kind: WatchFeed.Kind = group.key.isLive ? .live : .catchUp
    // Any stream of the principal will do, unless etcd has refused its token to this group.
    let existing =
      !group.key.isShared
      ? nil
      : feeds.values.first {
        $0.key.principal == group.key.principal && $0.key.requiresLeader == group.key.requiresLeader
          && $0.key.kind == kind && !group.refused.contains($0.key.token)
      }
    let key = WatchFeed.Key(
      principal: group.key.principal, requiresLeader: group.key.requiresLeader, kind: kind, token: token)
    guard let feed = existing ?? feed(key) else {
      homeless.append(group)
      return
    }
    feed.add(group)
  }

  func feed(_ key: WatchFeed.Key) -> WatchFeed? {
    if let feed = feeds[key] { return feed }
    let feed = WatchFeed(key, self)
    guard feed.begin() else { return nil }
    feeds[key] = feed
    return feed
  }

  /// A stream has ended with a status. What concerns its token or its leader goes to those on it; everything else is an
  /// outage that nobody has to notice.
  func feedEnded(
    _ feed: WatchFeed, _ code: GRPCStatus.Code, _ words: [UInt8], _ groups: [HomeGroup],
    _ questions: [(core: Int, question: WatchQuestion)]
  ) {
    feeds[feed.key] = nil
    for (core, question) in questions { answered(question, core, nil) }
    switch code {
    case .unavailable where feed.key.requiresLeader && words.elementsEqual(Self.noLeader):
      for group in groups { end(group, .status(code, words)) }
    case .unauthenticated, .permissionDenied, .unimplemented, .invalidArgument:
      for group in groups { refuse(group, feed, .status(code, words)) }
    case _ where core.isEnding: break
    default:
      core.log.info(
        "a watch stream to etcd ended; it is opened again", .string("code", "\(code)"),
        .string("error", String(decoding: words, as: UTF8.self)))
      homeless += groups
      failures += 1
      let pause = failures == 1 ? 0 : min(100 << UInt64(min(failures, 6)), 3000)
      retryAt = core.now + .milliseconds(UInt64(pause))
      core.scheduleWatchTick(after: .milliseconds(UInt64(pause)))
    }
  }

  private static let noLeader = Array("etcdserver: no leader".utf8)

  /// The group's token is refused: another one of the same principal may do.
  private func refuse(_ group: HomeGroup, _ feed: WatchFeed, _ reason: WatchEnd.Reason) {
    group.refused.append(feed.key.token)
    guard group.untriedToken == nil else { return place(group) }
    if group.key.isShared, case .canceled(_, let words, _, let hasNoID) = reason {
      return end(group, .refused(reason: words, hasNoID: hasNoID, tokens: group.refused))
    }
    end(group, reason)
  }

  // MARK: What streams bring

  /// The highest revision that clients will have been shown.
  func saw(_ header: ResponseHeader) {
    core.shared.noteSeen(header.revision)
    failures = 0
  }

  /// The group's watch stands.
  func stands(_ group: HomeGroup, _ header: ResponseHeader) {
    if group.header.clusterID != 0, header.clusterID != group.header.clusterID {
      core.log.warn("etcd is another cluster than before: the watches on it end")
      return end(
        group,
        .canceled(
          compactRevision: 0, reason: Array("etcdserver: cluster ID mismatch".utf8), isRefusal: false,
          hasNoID: false))
    }
    if group.history.from != 0 { core.shared.counters.add(.watchResumes, core: core.index) }
    group.stands(header)
    tell(.live, group, group.state)
    lanesStand(of: group)
  }

  /// Events of a group: whole revisions.
  func brought(_ group: HomeGroup, _ events: UnsafeRawBufferPointer, _ header: ResponseHeader) {
    let rewritten = core.shared.namespace.flatMap { unsafe Self.strip($0, events, core.pool) }
    let hasPrevious = group.previousFrom != .max
    let block: WatchBlock?
    if let rewritten {
      block = unsafe rewritten.withUnsafeBytes {
        unsafe WatchBlock($0, header: header, hasPrevious: hasPrevious, from: group.next)
      }
    } else {
      block = unsafe WatchBlock(events, header: header, hasPrevious: hasPrevious, from: group.next)
    }
    guard let block else { return }
    group.header = header
    group.advance(to: block.last)
    // What brings the past has one core that wants it, which keeps it.
    if group.key.isLive { group.history.append(block, now: core.now, most: core.historyLimit) }
    core.shared.counters.add(.watchBlocks, core: core.index)
    core.shared.counters.add(.watchEvents, UInt64(block.eventCount), core: core.index)
    tell(.block, group, block)
    if group.key.isLive { distribute(block, of: group) } else { pace(group, block.byteCount) }
  }

  /// Keys as clients inside a namespace know them.
  private static func strip(
    _ namespace: Namespace, _ events: UnsafeRawBufferPointer, _ pool: BlockPool
  ) -> [UInt8]? {
    var output = ByteBuffer(pool)
    switch unsafe namespace.response(.watch, events, into: &output) {
    case .rewritten: return unsafe Array(output.bytes)
    default: return nil
    }
  }

  func progressed(_ group: HomeGroup, _ header: ResponseHeader) {
    guard group.fragments.isEmpty else { return }
    group.header = header
    group.advance(to: header.revision)
    tell(.progress, group, group.state)
    lanesProgressed(of: group)
  }

  /// A watch that brings the past is as far as its stream, though nothing has come of it. No client has asked for that.
  func located(_ group: HomeGroup, _ header: ResponseHeader) {
    guard group.phase == .live, group.fragments.isEmpty, header.revision >= group.next else { return }
    group.advance(to: header.revision)
    tell(.live, group, group.state)
  }

  /// etcd has taken the watch back, or refused it.
  func canceled(_ group: HomeGroup, _ response: WatchResponse, by feed: WatchFeed) {
    group.header = response.header
    if response.compactRevision > 0 { core.shared.noteCompaction(response.compactRevision) }
    let reason = WatchEnd.Reason.canceled(
      compactRevision: response.compactRevision, reason: unsafe Array(response.cancelReason),
      isRefusal: response.isCreated, hasNoID: response.watchID == -1)
    if response.isCreated, response.compactRevision == 0, !group.tokens.allSatisfy(\.isEmpty) {
      refuse(group, feed, reason)
    } else {
      end(group, reason)
    }
  }

  /// The group leaves the table before anybody is told, so that nobody joins it any more.
  func end(_ group: HomeGroup, _ reason: WatchEnd.Reason) {
    guard group.phase != .ended else { return }
    endAutomatic(group)
    forget(group)
    tell(.ended, group, WatchEnd(header: group.header, reason))
    endLanes(of: group, reason)
  }

  func forget(_ group: HomeGroup) {
    group.phase = .ended
    uncount(group)
    if automatic.remove(group.key) != nil, uncovered[group.key] == nil {
      uncovered[group.key] = core.now + Limits.coverRest
    }
    groups[group.key] = nil
    byID[group.id] = nil
    if let lane = group.lane { return leave(lane) }
    if group.feed == nil { homeless.removeAll { $0 === group } }
    if group.isPaused { paused.removeAll { $0 === group } }
    group.feed?.remove(group)
  }

  // MARK: Telling cores

  func tell(_ kind: WatchNotice.Kind, _ group: HomeGroup, _ object: AnyObject, to sender: Int? = nil) {
    let target = sender.map { UInt16($0) } ?? WatchNotice.everybody
    let notice = WatchNotice(kind, to: target, group: group.id, object)
    if sender == nil {
      let isOurs = group.subscribers[core.index]
      if isOurs { core.watch.arrived(notice, object, from: core.index) }
      guard group.subscriberCount > (isOurs ? 1 : 0) else { return }
      for other in 0..<cores where other != core.index && group.subscribers[other] { core.outbox.ring(other) }
      return push(notice, object)
    }
    publish(notice, object)
  }

  /// For every core that may have lanes of the cover.
  func tellAll(_ kind: WatchNotice.Kind, _ cover: HomeGroup, _ object: AnyObject) {
    let notice = WatchNotice(kind, group: cover.id, object)
    core.watch.arrived(notice, object, from: core.index)
    guard cores > 1 else { return }
    for other in 0..<cores where other != core.index { core.outbox.ring(other) }
    push(notice, object)
  }

  /// For one core.
  func publish(_ notice: WatchNotice, _ object: AnyObject?) {
    if Int(notice.core) == core.index { return core.watch.arrived(notice, object, from: core.index) }
    core.outbox.ring(Int(notice.core))
    push(notice, object)
  }

  private func push(_ notice: WatchNotice, _ object: AnyObject?) {
    guard unpublished.isEmpty, ring.push(notice) else {
      unpublished.append((notice, object))
      return
    }
    published += 1
    if let object { kept.append((published, object)) }
  }

  /// Once a turn: what the ring had no room for, and what all cores have read.
  func finishTurn() {
    publishRest()
    releaseRead()
  }

  private func publishRest() {
    guard !unpublished.isEmpty else { return }
    var next = 0
    while next < unpublished.count, ring.push(unpublished[next].notice) {
      published += 1
      if let object = unpublished[next].object { kept.append((published, object)) }
      next += 1
    }
    unpublished.removeFirst(next)
    for other in 0..<cores where other != core.index { core.outbox.ring(other) }
    // The others make room in a moment, and say nothing of it.
    if !unpublished.isEmpty { core.outbox.ring(core.index) }
  }

  private func releaseRead() {
    guard keptGone < kept.count else { return }
    let lag = (0..<ring.readers).reduce(0) { max($0, ring.lag($1) ?? 0) }
    let read = published - UInt64(min(lag, Int(published)))
    while keptGone < kept.count, kept[keptGone].until <= read { keptGone += 1 }
    guard keptGone == kept.count || keptGone > 1024 else { return }
    kept.removeFirst(keptGone)
    keptGone = 0
  }

  // MARK: Now and then

  /// What the metrics show of it.
  private func report() {
    let counters = core.shared.counters
    let lanes = groups.values.count { $0.lane != nil }
    counters.set(.watchGroups, UInt64(groups.count - lanes), core: core.index)
    counters.set(.watchLanes, UInt64(lanes), core: core.index)
    counters.set(.watchCovers, UInt64(groups.values.count { $0.cover != nil }), core: core.index)
    counters.set(.watchStreams, UInt64(feeds.values.filter(\.hasGroups).count), core: core.index)
    counters.set(.watchHistoryBytes, UInt64(historyBytes), core: core.index)
  }

  func tick() {
    let now = core.now
    if now >= retryAt {
      let waiting = homeless
      homeless.removeAll()
      for group in waiting where group.phase != .ended { place(group) }
    }
    forgetIdle()
    tickAutomatic()
    if !uncovered.isEmpty { uncovered = uncovered.filter { now < $0.value } }
    // Others answer ahead of their events.
    let isSound = core.shared.hasSoundProgress.load(ordering: .relaxed)
    for feed in feeds.values {
      feed.remind()
      if feed.key.kind == .catchUp, isSound { feed.locate() }
      if feed.isIdle, now - feed.idleSince >= Limits.groupGrace {
        feeds[feed.key] = nil
        feed.abandon()
      }
    }
    finishTurn()
  }

  /// Groups that nobody has wanted for their time.
  private func forgetIdle() {
    guard !idle.isEmpty else { return }
    let waiting = idle
    idle.removeAll(keepingCapacity: true)
    var next = Instant.distantFuture
    for group in waiting where group.phase != .ended && !group.isWanted {
      let due = group.idleSince + group.grace
      if due <= core.now {
        forget(group)
      } else {
        idle.append(group)
        next = min(next, due)
      }
    }
    if next != .distantFuture { core.scheduleWatchTick(after: next - core.now) }
  }

  /// Once a second, through all groups.
  func lookThrough(olderThan time: Instant) {
    for group in groups.values {
      group.history.trim(before: time)
      group.history.shrink(to: core.historyLimit)
      remindLanes(of: group)
    }
    report()
  }
}
