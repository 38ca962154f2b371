internal import Reactor

/// Keepers: who gets one, and what they tell.
extension RangeCache {
  /// Somebody wants the entry: read twice within a moment it is worth a keeper.
  func wish(_ entry: borrowing CacheEntry, _ token: UnsafeRawBufferPointer, _ now: Instant) {
    if let keeper = entry.span.keeper {
      keeper.wanted = now
      return
    }
    guard settings.mode == .watch, now - entry.wanted <= Limits.keeperHeat, entry.span.keeperPause <= now,
      keepers.count < Limits.keepersACore, let source
    else { return }
    let keeper = unsafe CacheKeeper(
      self, entry.span, token: Array(token), from: entry.header.revision + 1, now: now)
    entry.span.keeper = keeper
    keeper.place = keepers.count
    keepers.append(keeper)
    count(.keepersBegun)
    source.keep(keeper)
  }

  /// Asks how far the keepers have come that were wanted since `since`. False if there are none.
  func proveWanted(since: Instant) -> Bool {
    var isAny = false
    for keeper in keepers where keeper.wanted >= since {
      source?.prove(keeper)
      isAny = true
    }
    return isAny
  }

  func releaseIdle(_ now: Instant) {
    var place = keepers.count - 1
    while place >= 0 {
      if now - keepers[place].wanted > Limits.keeperIdle { release(keepers[place]) }
      place -= 1
    }
  }

  func release(_ keeper: CacheKeeper) {
    source?.release(keeper)
    forget(keeper)
  }

  private func forget(_ keeper: CacheKeeper) {
    guard keeper.place < keepers.count, keepers[keeper.place] === keeper else { return }
    let last = keepers.removeLast()
    if last !== keeper {
      last.place = keeper.place
      keepers[keeper.place] = last
    }
    count(.keepersEnded)
    // What it has kept until now has a while without.
    guard let span = keeper.span else { return }
    span.keeper = nil
    discard(span)
  }

  // MARK: What keepers tell

  /// Keys have changed.
  func changed(_ keeper: CacheKeeper, in revision: Int64) {
    guard let span = keeper.span else { return }
    span.changed = max(span.changed, revision)
    drop(span, before: revision, .byEvent)
  }

  /// The keeper is no more.
  func ended(_ keeper: CacheKeeper, compacted revision: Int64, _ now: Instant) {
    keeper.span?.keeperPause = revision > 0 ? now : now + Limits.keeperPause
    forget(keeper)
    if revision > 0 { compact(to: revision) }
  }

  /// Drops the entries of a span whose answers are older.
  func drop(_ span: CacheSpan, before revision: Int64, _ cause: CacheCounters.Field) {
    var next = span.firstEntry
    while next != .none {
      let handle = next
      next = .none
      let isOlder = entries.edit(handle) { entry -> Bool in
        next = entry.nextOfSpan
        return entry.fixed == 0 && entry.header.revision < revision
      }
      if isOlder == true { drop(handle, cause) }
    }
  }

  /// Whether the keeper of the read prepared last may soon have come farther than it is now.
  func mayCatchUp(_ key: Key, _ now: Instant) -> Bool {
    guard let handle = find(key.hash), source?.isSound == true else { return false }
    return entries.edit(handle) { entry in
      keeper(of: entry)?.isLive(now, isSound: true) ?? false
    } ?? false
  }
}
