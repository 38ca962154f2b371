internal import Reactor

/// Answers to reads, kept for the clients of a core: a machine that does no I/O.
///
/// An entry is right up to a revision: that of etcd's answer, and from then on as far as its keeper has told. It may be shown
/// to whoever has not seen a later revision, as long as it is fresh: its keeper is live, or the time that nothing has
/// vouched for it is within `--cache-max-staleness`. Whatever happens to its keys later takes it away: an event of the keeper
/// (`+Keepers`), a write through this proxy (`+Writes`).
final class RangeCache {
  let settings: CacheSettings
  let pool = BlockPool()
  let core: Int
  let counters: CacheCounters
  /// Who runs the keepers' watches.
  weak var source: (any CacheKeeperSource)?

  let entries: Slab<CacheEntry>
  var index = HandleIndex()
  var spans: SpanTree<CacheSpan>
  var keepers: [CacheKeeper] = []
  var log = WriteLog()
  /// Counts what bars the answers of reads that are under way.
  var sequence: UInt64 = 1
  /// Answers to reads sent before are no longer taken.
  var barrier: UInt64 = 0
  /// Something nobody knows the keys of has been written in this revision: only what is right up to there is shown.
  var floor: Int64 = 0
  var compacted: Int64 = 0
  private(set) var bytes = 0
  /// Entries in the order in which the hand passes them.
  private var newest = Handle.none
  private var oldest = Handle.none

  /// The read that is being looked at: whose it is, and the request in canonical form.
  private var probe: ByteBuffer
  private var probeHash: UInt64 = 0
  private var scratch: ByteBuffer
  /// Spans that something has happened to.
  var touched: [CacheSpan] = []

  init(_ settings: CacheSettings, core: Int, counters: CacheCounters, seed: UInt64) throws(SystemError) {
    self.settings = settings
    self.core = core
    self.counters = counters
    entries = try Slab(capacity: settings.mode == .off ? 0 : Limits.cacheEntriesACore)
    spans = SpanTree(seed: seed)
    probe = ByteBuffer(pool)
    scratch = ByteBuffer(pool)
  }

  /// What lies in the pool goes before the pool does.
  deinit {
    while entries.contains(oldest) { remove(oldest) }
    probe.removeAll()
    scratch.removeAll()
  }

  func count(_ field: CacheCounters.Field, _ amount: Int = 1) { counters.add(field, amount, core: core) }

  // MARK: Reads

  /// The key of a read, until the next one is prepared.
  struct Key {
    let hash: UInt64
    fileprivate let count: Int
  }

  /// Brings a read into the form in which it is looked for; nil if it is none for the cache.
  func prepare(_ query: RangeQuery, _ principal: Principal) -> Key? {
    guard let span = query.span, !settings.bypass.contains(where: { $0.overlaps(span) }) else { return nil }
    probe.removeAll()
    let room = unsafe probe.reserve(4)
    unsafe room.storeBytes(of: principal.number, as: UInt32.self)
    probe.commit(4)
    query.encode(into: &probe)
    guard probe.count <= Limits.cachedRequestBytes else { return nil }
    var hasher = Hasher()
    unsafe hasher.combine(bytes: probe.bytes)
    probeHash = UInt64(bitPattern: Int64(hasher.finalize()))
    return Key(hash: probeHash, count: probe.count)
  }

  /// The bytes of the key prepared last.
  func withKey<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result { unsafe body(probe.bytes) }

  /// An entry that answers the read, and the revision to put into the header.
  struct Hit {
    let entry: Handle
    let revision: Int64
    let isFixed: Bool
  }

  /// Looks for an answer to the read prepared last.
  ///
  /// - Parameter shown: the revision that the client has seen, behind which it must not be taken.
  func look(_ key: Key, shown: Int64, token: UnsafeRawBufferPointer, _ now: Instant) -> Hit? {
    guard let handle = find(key.hash) else { return nil }
    var isGone: CacheCounters.Field?
    let hit: Hit? =
      entries.edit(handle) { entry -> Hit? in
        defer { entry.wanted = now }
        entry.isWanted = true
        if entry.fixed == 0 { unsafe wish(entry, token, now) }
        guard now - entry.allowed <= Limits.permissionAge else { return nil }
        if entry.fixed > 0 {
          if entry.fixed < compacted { isGone = .byCompaction }
          guard entry.fixed >= compacted, isFresh(entry, now) else { return nil }
          // The state of then does not change; that the store has come farther is no lie.
          return Hit(entry: handle, revision: max(entry.header.revision, shown), isFixed: true)
        }
        let right = right(entry)
        guard isFresh(entry, now), right >= max(shown, floor) else {
          if let keeper = entry.span.keeper { source?.prove(keeper) }
          return nil
        }
        return Hit(entry: handle, revision: right, isFixed: false)
      } ?? nil
    if let isGone { drop(handle, isGone) }
    return hit
  }

  /// The revision up to which the entry shows what etcd would.
  func right(_ entry: borrowing CacheEntry) -> Int64 {
    guard let keeper = keeper(of: entry) else { return entry.header.revision }
    return max(entry.header.revision, keeper.position - 1)
  }

  /// The keeper that has told everything since the entry's revision.
  func keeper(of entry: borrowing CacheEntry) -> CacheKeeper? {
    guard let keeper = entry.span.keeper, keeper.from <= entry.header.revision &+ 1 else { return nil }
    return keeper
  }

  private func isFresh(_ entry: borrowing CacheEntry, _ now: Instant) -> Bool {
    if entry.fixed > 0 { return settings.mode == .watch || now - entry.asked <= settings.maxStaleness }
    var good = entry.asked
    if let keeper = keeper(of: entry) {
      if keeper.isLive(now, isSound: source?.isSound == true) { return true }
      good = max(good, keeper.lastGood(now))
    }
    return settings.maxStaleness > .zero && now - good <= settings.maxStaleness
  }

  /// The message on the wire that answers, with `revision` in its header.
  func withMessage(_ hit: Hit, _ body: (UnsafeRawBufferPointer) -> Void) {
    _ = entries.edit(hit.entry) { entry in unsafe body(entry.render(hit.revision, scratch: &scratch)) }
  }

  /// Whether there is an entry, however old, for the read prepared last.
  func knows(_ key: Key) -> Bool { find(key.hash) != nil }

  func find(_ hash: UInt64) -> Handle? {
    index.find(hash) { handle in
      entries.edit(handle) { unsafe SpanView.compare($0.key.bytes, probe.bytes) == 0 } ?? false
    }
  }

  // MARK: Entries

  /// Keeps an answer, unless it is known to be out of date.
  ///
  /// - Parameters:
  ///   - key: as `withKey` gave it.
  ///   - message: without gRPC's prefix.
  ///   - sent: when the read was sent to etcd, and the sequence then.
  func insert(
    key: UnsafeRawBufferPointer, message: UnsafeRawBufferPointer, sent: (at: Instant, sequence: UInt64),
    _ now: Instant
  ) {
    guard key.count > 4, sent.sequence >= barrier, settings.mode != .off,
      let query = unsafe RangeQuery(UnsafeRawBufferPointer(rebasing: key[4...])), let keys = query.span,
      let answer = unsafe CacheAnswer(message, pool)
    else { return count(.refusedInserts) }
    let charge = CacheEntry.charge(key: key.count, body: answer.body.count)
    guard charge <= settings.bytes / 8 else { return count(.refusedInserts) }
    let principal = unsafe Principal(number: key.loadUnaligned(as: UInt32.self))
    probe.removeAll()
    unsafe probe.append(key)
    var hasher = Hasher()
    unsafe hasher.combine(bytes: key)
    let hash = UInt64(bitPattern: Int64(hasher.finalize()))
    let fixed = query.revision
    let revision = answer.header.revision
    if fixed == 0, !isCurrent(keys, principal, revision, sent.sequence) { return count(.refusedInserts) }
    var heat: Instant?
    if let known = find(hash) {
      let isNewer = entries.edit(known) { entry -> Bool in
        heat = entry.wanted
        // etcd has allowed it once more, even if the member it was asked of is behind.
        entry.allowed = max(entry.allowed, sent.at)
        return fixed == 0 && entry.header.revision > revision
      }
      if isNewer == true { return count(.refusedInserts) }
      remove(known)
    }
    makeRoom(charge)
    var copy = ByteBuffer(pool)
    unsafe copy.append(key)
    let span = spans.find(keys, principal) ?? spans.insert(keys, principal)
    var entry = CacheEntry(
      key: copy, hash: hash, span: span, fixed: fixed, header: answer.header, asked: sent.at,
      now: heat ?? sent.at, body: answer.body, pool)
    entry.nextOfSpan = span.firstEntry
    guard let handle = entries.insert(entry) else { return discard(span) }
    if span.firstEntry != .none { _ = entries.edit(span.firstEntry) { $0.previousOfSpan = handle } }
    span.firstEntry = handle
    index.insert(hash, handle)
    link(handle)
    bytes += charge
    count(.inserted)
    count(.bytesIn, charge)
  }

  /// Whether nothing is known to have changed the keys after `revision`.
  private func isCurrent(
    _ keys: SpanView, _ principal: Principal, _ revision: Int64, _ sequence: UInt64
  ) -> Bool {
    guard log.admits(keys, revision, sentAt: sequence) else { return false }
    guard let span = spans.find(keys, principal) else { return true }
    return span.changed <= revision && (span.keeper.map { $0.from <= revision &+ 1 } ?? true)
  }

  func drop(_ handle: Handle, _ cause: CacheCounters.Field) {
    guard entries.contains(handle) else { return }
    count(cause)
    let span = remove(handle)
    if let span { discard(span) }
  }

  /// Takes an entry out and leaves its span.
  @discardableResult
  private func remove(_ handle: Handle) -> CacheSpan? {
    unlink(handle)
    guard let entry = entries.remove(handle) else { return nil }
    index.remove(entry.hash, handle)
    _ = entries.edit(entry.previousOfSpan) { $0.nextOfSpan = entry.nextOfSpan }
    _ = entries.edit(entry.nextOfSpan) { $0.previousOfSpan = entry.previousOfSpan }
    if entry.span.firstEntry == handle { entry.span.firstEntry = entry.nextOfSpan }
    bytes -= entry.charge
    count(.removed)
    count(.bytesOut, entry.charge)
    return entry.span
  }

  /// Forgets a span that nothing is left of.
  func discard(_ span: CacheSpan) {
    if span.firstEntry == .none, span.keeper == nil, !span.isDiscarded {
      span.isDiscarded = true
      spans.remove(span)
    }
  }

  // MARK: The hand

  private func link(_ handle: Handle) {
    _ = entries.edit(handle) { $0.older = newest }
    _ = entries.edit(newest) { $0.newer = handle }
    newest = handle
    if oldest == .none { oldest = handle }
  }

  private func unlink(_ handle: Handle) {
    var (newer, older) = (Handle.none, Handle.none)
    _ = entries.edit(handle) { entry in
      (newer, older) = (entry.newer, entry.older)
      (entry.newer, entry.older) = (.none, .none)
    }
    _ = entries.edit(newer) { $0.older = older }
    _ = entries.edit(older) { $0.newer = newer }
    if newest == handle { newest = older }
    if oldest == handle { oldest = newer }
  }

  /// The hand passes: what was wanted since it last came by stays for another round.
  private func makeRoom(_ charge: Int) {
    var spared = 0
    while bytes + charge > settings.bytes, oldest != .none {
      let handle = oldest
      let stays = entries.edit(handle) { entry -> Bool in
        defer { entry.isWanted = false }
        return entry.isWanted
      }
      if stays == true, spared < Self.mostSpared {
        spared += 1
        unlink(handle)
        link(handle)
      } else {
        drop(handle, .byRoom)
      }
    }
  }

  private static let mostSpared = 64
  private static let entriesASweep = 4096

  /// Called about once a second: takes out what nobody may be shown any more, and gives idle keepers back.
  func sweep(_ now: Instant) {
    releaseIdle(now)
    for _ in 0..<min(Self.entriesASweep, entries.count) {
      let handle = oldest
      let isOver = entries.edit(handle) { entry -> Bool in
        if entry.fixed > 0 { return now - entry.allowed > Limits.permissionAge }
        return keeper(of: entry) == nil && now - entry.asked > settings.retention
      }
      if isOver == true {
        drop(handle, .byAge)
      } else {
        unlink(handle)
        link(handle)
      }
    }
  }

  /// Everything goes: somebody's rights may have changed.
  func flush() {
    sequence += 1
    barrier = sequence
    while oldest != .none { drop(oldest, .byAuth) }
    while let keeper = keepers.last { release(keeper) }
  }
}
