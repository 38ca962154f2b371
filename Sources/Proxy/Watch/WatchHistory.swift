internal import Reactor

/// The blocks of a group that are kept, oldest first, each with a number that it keeps.
///
/// A cursor is such a number. It pins nothing: when the history shrinks past it, its watcher is served otherwise.
struct WatchHistory {
  struct Entry {
    /// Nil once it has been dropped.
    var block: WatchBlock?
    let since: Instant
  }

  /// Everything from this revision on is in the history.
  private(set) var from: Int64 = 0
  private(set) var byteCount = 0
  /// The number of the oldest block, and of the one to come.
  private(set) var base = 0
  private var entries: [Entry] = []
  /// Entries at the front that are gone.
  private var gone = 0

  var end: Int { base &+ entries.count &- gone }
  var count: Int { entries.count - gone }
  var blocks: [WatchBlock] { entries[gone...].compactMap(\.block) }

  /// The block of a number between `base` and `end`.
  subscript(_ number: Int) -> WatchBlock {
    guard number >= base, number < end, let block = entries[gone &+ number &- base].block else {
      preconditionFailure("no such block")
    }
    return block
  }

  /// Begins anew: complete from `revision` on, without a block.
  mutating func restart(from revision: Int64) {
    base = end
    entries.removeAll()
    gone = 0
    byteCount = 0
    from = revision
  }

  /// Adds the newest block, and lets go of the oldest ones beyond the limit.
  mutating func append(_ block: WatchBlock, now: Instant, most: Int) {
    entries.append(Entry(block: block, since: now))
    byteCount += block.byteCount
    while byteCount > most, count > 1 { dropFirst() }
  }

  /// Lets go of blocks that are older than `time`.
  mutating func trim(before time: Instant) {
    while gone < entries.count, entries[gone].since < time { dropFirst() }
  }

  private mutating func dropFirst() {
    guard let block = entries[gone].block else { return }
    entries[gone].block = nil
    byteCount -= block.byteCount
    from = max(from, block.last + 1)
    gone += 1
    base += 1
    guard gone > 32, gone * 2 > entries.count else { return }
    entries.removeFirst(gone)
    gone = 0
  }

  /// The number of the first block that brings something from `revision` on.
  func find(_ revision: Int64) -> Int {
    var (low, high) = (base, end)
    while low < high {
      let middle = (low + high) / 2
      if self[middle].last < revision { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
