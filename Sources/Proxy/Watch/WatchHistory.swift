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

  /// Adds the newest block, and lets go of the oldest ones as `shrink` does.
  mutating func append(_ block: WatchBlock, now: Instant, most: Int, needed: Int = .max) {
    entries.append(Entry(block: block, since: now))
    byteCount += block.byteCount
    shrink(to: most, needed: needed)
  }

  /// Lets go of the oldest blocks beyond `most` bytes, but of no block from number `needed` on, and not of the newest.
  mutating func shrink(to most: Int, needed: Int = .max) {
    while byteCount > most, count > 1, base < needed { dropFirst() }
  }

  /// Lets go of blocks that are older than `time`, but of no block from number `needed` on.
  mutating func trim(before time: Instant, needed: Int = .max) {
    while gone < entries.count, base < needed, entries[gone].since < time { dropFirst() }
  }

  /// When the block of a number between `base` and `end` came.
  func since(_ number: Int) -> Instant { entries[gone &+ number &- base].since }

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
