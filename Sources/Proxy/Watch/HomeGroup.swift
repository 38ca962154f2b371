internal import Reactor

/// A group on its home core: one watch upstream, or a lane of a group that has one, and how far it has come.
final class HomeGroup {
  enum Phase {
    /// The create has not been answered: the first one, or the one after a loss.
    case connecting
    case live
    /// Out of the table; nobody joins it any more.
    case ended
  }

  let id: UInt32
  let key: GroupKey
  var phase = Phase.connecting
  /// Its place in the cover that it has its blocks from, and the groups that have theirs from it.
  var lane: WatchLane?
  var cover: WatchCover?
  /// It counts among the ranges with watches of their own, by which prefixes are chosen to be covered.
  var isCounted = false
  /// For a cover: events since it was last judged that a lane wanted, and that nobody did.
  var wanted = 0
  var unwanted = 0
  var judgedAt: Instant
  /// The stream that carries it, and its number there; 0 is none.
  var feed: WatchFeed?
  var upstreamID: Int64 = 0
  /// The smallest revision that has not been received completely; 0 is "from now on", until etcd has said when that is.
  private(set) var next: Int64
  var history = WatchHistory()
  /// The header of the last answer.
  var header = ResponseHeader()
  var wantsPrevious: Bool
  /// From here on events carry what was there before.
  var previousFrom = Int64.max
  /// Cores with watchers.
  private(set) var subscribers: [Bool]
  private(set) var subscriberCount = 0
  var idleSince: Instant
  /// For how long it is kept when nobody wants it.
  var grace = Limits.groupGrace
  /// Tokens of its principal that may be tried, newest last, and those that etcd has refused since it last accepted one.
  private(set) var tokens: [[UInt8]] = []
  var refused: [[UInt8]] = []
  /// Parts of a response that etcd sends in fragments.
  var fragments: ByteBuffer
  /// For a group that brings the past: bytes that it is ahead of its fastest watcher, and whether it has no watch upstream because
  /// that was too much.
  var ahead = 0
  var isPaused = false

  init(_ id: UInt32, _ subscription: WatchSubscription, cores: Int, now: Instant, _ pool: BlockPool) {
    self.id = id
    key = subscription.key
    switch key.kind {
    case .live:
      next = subscription.start
      wantsPrevious = subscription.wantsPrevious
    case .catchUp(_, let from, let previous), .own(_, let from, let previous):
      next = from
      wantsPrevious = previous
    }
    subscribers = Array(repeating: false, count: cores)
    idleSince = now
    judgedAt = now
    fragments = ByteBuffer(pool)
  }

  func add(_ core: Int) {
    guard !subscribers[core] else { return }
    subscribers[core] = true
    subscriberCount += 1
  }

  func learn(_ token: [UInt8]) {
    guard !tokens.contains(token) else { return }
    tokens.append(token)
    if tokens.count > Limits.watchTokens { tokens.removeFirst() }
  }

  func remove(_ core: Int, now: Instant, grace: Instant.Span) {
    guard subscribers[core] else { return }
    subscribers[core] = false
    subscriberCount -= 1
    idleSince = now
    self.grace = grace
  }

  /// A token that etcd has not refused.
  var untriedToken: [UInt8]? { tokens.last { !refused.contains($0) } }

  /// The upstream watch stands. The first time this says where it begins.
  func stands(_ header: ResponseHeader) {
    phase = .live
    self.header = header
    refused.removeAll()
    if next <= 0 { next = header.revision + 1 }
    if history.from == 0 { history.restart(from: next) }
    if wantsPrevious { previousFrom = min(previousFrom, next) }
  }

  /// Everything up to the revision has come. Never backwards.
  func advance(to revision: Int64) { next = max(next, revision + 1) }

  /// Somebody has its blocks.
  var isWanted: Bool { subscriberCount > 0 || cover != nil }

  /// A lane has come as far as its cover.
  func keepUp(with cover: HomeGroup) {
    guard cover.history.from != 0 else { return }
    if history.from == 0 { history.restart(from: cover.next) }
    next = cover.next
    header = cover.header
    previousFrom = cover.previousFrom
  }

  var state: WatchState {
    WatchState(header: header, next: next, from: history.from, previousFrom: previousFrom)
  }

  /// The request upstream.
  func request(_ id: Int64) -> WatchCreateRequest {
    var request = WatchCreateRequest()
    request.key = key.range.key
    request.rangeEnd = key.range.end
    request.startRevision = next
    request.wantsProgress = true
    request.wantsPrevious = wantsPrevious
    request.watchID = id
    request.allowsFragments = true
    return request
  }
}
