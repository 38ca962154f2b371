internal import Reactor

/// Whether a watch that feeds keepers still speaks, and how far it has come: what the keepers on it have in common.
final class KeeperPulse {
  /// When the last question was asked that has been answered.
  var proven = Instant(nanoseconds: 0)
  /// The revision after the last one up to which all keepers have been told everything.
  fileprivate(set) var next: Int64 = 0
  fileprivate(set) var answers: UInt64 = 0

  /// Everything up to `revision` has been told to all keepers that were confirmed before.
  func advance(to revision: Int64) {
    next = max(next, revision &+ 1)
    answers += 1
  }
}

/// Keeps entries right: an internal watcher on their keys, for their principal.
///
/// The cache makes it and hands it to a `CacheKeeperSource`, which calls it back on the core.
final class CacheKeeper {
  enum State {
    /// Asked for, the first time or again: what happens is told late.
    case asked
    case live
  }

  let keys: KeySpan
  let principal: Principal
  /// Under which it may watch.
  let token: [UInt8]
  /// The first revision it is told of.
  let from: Int64
  /// The number it has with its source.
  var number: Int64 = 0
  /// What runs its watch; for the source alone.
  weak var watch: AnyObject?
  /// What it shares with its neighbours; the source sets it.
  var pulse: KeeperPulse?

  private(set) var state = State.asked
  /// The first revision of which not everything has been told.
  private var next: Int64
  /// The member's revision when it was confirmed: up to there it is told of the past.
  private var target: Int64 = 0
  /// Answers of the pulse before it was confirmed, which do not speak for it.
  private var answersBefore = UInt64.max
  private var confirmedAt = Instant(nanoseconds: 0)
  /// When it was last known to be live.
  private(set) var lastLive = Instant(nanoseconds: 0)
  /// When an entry of it was last wanted.
  var wanted: Instant
  /// Its place in the cache's list.
  var place = 0
  private(set) weak var span: CacheSpan?
  private weak var cache: RangeCache?

  init(_ cache: RangeCache, _ span: CacheSpan, token: [UInt8], from: Int64, now: Instant) {
    self.cache = cache
    self.span = span
    self.token = token
    self.from = from
    keys = span.keys
    principal = span.principal
    next = from
    wanted = now
  }

  /// Everything before this revision has been told.
  var position: Int64 {
    guard let pulse, pulse.answers > answersBefore else { return next }
    return max(next, pulse.next)
  }

  /// Whether what it has told is what etcd knows, but for the time that news take.
  func isLive(_ now: Instant, isSound: Bool) -> Bool {
    guard state == .live, let pulse, now - pulse.proven <= Limits.keeperSilence else { return false }
    if position > target { return true }
    // Of a member whose progress cannot be trusted only time tells that the past has been told.
    return !isSound && now - confirmedAt >= Limits.keeperSettling
  }

  /// When it was last as good as live.
  func lastGood(_ now: Instant) -> Instant {
    guard state == .live, let pulse, position > target else { return lastLive }
    return max(lastLive, pulse.proven)
  }

  // MARK: What the source tells

  /// The watch stands; its member was at `revision`.
  func confirmed(at revision: Int64, now: Instant) {
    state = .live
    target = revision
    confirmedAt = now
    answersBefore = pulse?.answers ?? 0
    // What the member has not reached is told as it happens.
    if next > revision { lastLive = now }
  }

  /// Keys have changed, last in `revision`, which has been told in full.
  func changed(in revision: Int64) {
    next = max(next, revision &+ 1)
    cache?.changed(self, in: revision)
  }

  /// The watch is interrupted; it goes on from `position`.
  func interrupted(_ now: Instant) {
    lastLive = lastGood(now)
    next = position
    state = .asked
    answersBefore = .max
  }

  /// The watch is over: etcd does not allow it any more, or `compacted` says what is gone.
  func ended(compacted: Int64 = 0, now: Instant) { cache?.ended(self, compacted: compacted, now) }
}

/// Who runs the watches of keepers.
protocol CacheKeeperSource: AnyObject {
  /// Watches from `keeper.position` on.
  func keep(_ keeper: CacheKeeper)
  /// The keeper is wanted no more and called back no more.
  func release(_ keeper: CacheKeeper)
  /// Asks etcd how far the keeper's watch has come. Once for all who share it, however often it is called.
  func prove(_ keeper: CacheKeeper)
  /// Whether answers to that can be trusted to stand behind all events (etcd from 3.4.25 and 3.5.8 on).
  var isSound: Bool { get }
}
