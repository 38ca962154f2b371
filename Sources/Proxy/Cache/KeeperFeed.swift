internal import Reactor

/// A watch stream to etcd that carries the keepers of one principal.
///
/// It asks for a leader: a member that is cut off from its cluster ends the stream, instead of being silent while the world
/// goes on.
final class KeeperFeed: OwnCall {
  private unowned let feeds: KeeperFeeds
  private var keepers: [Int64: CacheKeeper] = [:]
  private var lastNumber: Int64 = 0
  private var isOpen = false
  private var pulse = KeeperPulse()
  /// When it was asked how far it has come, while that is not answered.
  private var asked: Instant?
  /// Its token is no good any more, so others need another stream.
  private(set) var isRefused = false

  init(_ feeds: KeeperFeeds, _ core: ProxyCore, token: [UInt8]) {
    self.feeds = feeds
    super.init(core, .watch, token: token, requiresLeader: true, isPersistent: true)
  }

  var isEmpty: Bool { keepers.isEmpty }

  func add(_ keeper: CacheKeeper) {
    lastNumber += 1
    keeper.number = lastNumber
    keepers[lastNumber] = keeper
    if isOpen { create(keeper) }
  }

  func remove(_ keeper: CacheKeeper) {
    guard keepers.removeValue(forKey: keeper.number) != nil, isOpen else { return }
    say { WatchRequest.encodeCancel(watchID: keeper.number, into: &$0) }
  }

  private func create(_ keeper: CacheKeeper) {
    keeper.pulse = pulse
    let request = WatchCreateRequest(
      key: keeper.keys.start, rangeEnd: keeper.keys.rangeEnd, startRevision: keeper.position,
      watchID: keeper.number)
    var message = ByteBuffer(core.pool)
    request.encode(into: &message)
    say { output in
      guard let namespace = core.shared.namespace else { return unsafe output.append(message.bytes) }
      switch unsafe namespace.request(.watch, message.bytes, into: &output) {
      case .rewritten: break
      default: unsafe output.append(message.bytes)
      }
    }
  }

  /// Asks how far the member has come; an answer that is late counts as lost, as etcd gives none while it tells of the past.
  func ask() {
    guard isOpen, !keepers.isEmpty else { return }
    if let asked, core.now - asked < Limits.keeperProofs { return }
    asked = core.now
    say { WatchRequest.encodeProgress(into: &$0) }
  }

  // MARK: What etcd says

  override func opened() {
    isOpen = true
    asked = nil
    // Another member may be behind the last one.
    pulse = KeeperPulse()
    for keeper in keepers.values { create(keeper) }
    ask()
  }

  override func interrupted() {
    isOpen = false
    for keeper in keepers.values { keeper.interrupted(core.now) }
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    isOpen = false
    let all = keepers.values
    keepers = [:]
    feeds.closed(self)
    for keeper in all { keeper.ended(now: core.now) }
  }

  override func received(_ message: UnsafeRawBufferPointer) {
    guard let response = unsafe try? WatchResponse(message) else { return }
    core.reads.hasNews = true
    if response.watchID == -1, response.isProgress { return progressed(response.header.revision) }
    guard let keeper = keepers[response.watchID] else { return }
    if response.isCanceled { return refused(keeper, response) }
    if response.isCreated {
      keeper.confirmed(at: response.header.revision, now: core.now)
      return ask()
    }
    if let revision = lastRevision(response) { keeper.changed(in: revision) }
  }

  private func progressed(_ revision: Int64) {
    if let asked { pulse.proven = max(pulse.proven, asked) }
    asked = nil
    // Where etcd answers ahead of its events this only shows that it lives.
    if feeds.isSound { pulse.advance(to: revision) }
  }

  private func refused(_ keeper: CacheKeeper, _ response: WatchResponse) {
    keepers[keeper.number] = nil
    if response.compactRevision == 0 { isRefused = true }
    keeper.ended(compacted: response.compactRevision, now: core.now)
    feeds.lookAt(self)
  }

  /// The revision of the last event.
  private func lastRevision(_ response: WatchResponse) -> Int64? {
    var last: UnsafeRawBufferPointer?
    var events = response.events
    while let event = unsafe try? events.next() { unsafe last = event }
    guard let last = unsafe last, let event = unsafe try? WatchEvent(last) else { return nil }
    return unsafe (try? KeyValue(event.keyValue))?.modRevision
  }
}

/// The streams of keepers of a core.
final class KeeperFeeds: CacheKeeperSource {
  /// The owner. A weak reference would give it a side table, and make every retain of it slow.
  unowned var core: ProxyCore?
  private var feeds: [Principal: [KeeperFeed]] = [:]

  var isSound: Bool { core?.shared.hasSoundProgress.load(ordering: .relaxed) ?? false }

  func keep(_ keeper: CacheKeeper) {
    guard let core else { return }
    let feed: KeeperFeed
    if let open = feeds[keeper.principal]?.first(where: { !$0.isRefused }) {
      feed = open
    } else {
      feed = KeeperFeed(self, core, token: keeper.token)
      feeds[keeper.principal, default: []].append(feed)
      // There is no room for the call: entries live without a keeper.
      if !feed.begin() { closed(feed) }
    }
    keeper.watch = feed
    feed.add(keeper)
    core.scheduleProofs()
  }

  func release(_ keeper: CacheKeeper) {
    guard let feed = keeper.watch as? KeeperFeed else { return }
    feed.remove(keeper)
    lookAt(feed)
  }

  func prove(_ keeper: CacheKeeper) { (keeper.watch as? KeeperFeed)?.ask() }

  /// A stream without keepers ends.
  func lookAt(_ feed: KeeperFeed) {
    guard feed.isEmpty else { return }
    feed.abandon()
    closed(feed)
  }

  /// The core ends.
  func close() {
    for feed in feeds.values.joined() { feed.abandon() }
    feeds = [:]
  }

  func closed(_ feed: KeeperFeed) {
    for (principal, list) in feeds {
      guard list.contains(where: { $0 === feed }) else { continue }
      let rest = list.filter { $0 !== feed }
      feeds[principal] = rest.isEmpty ? nil : rest
    }
  }
}
