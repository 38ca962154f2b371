internal import Synchronization

/// The cache's figures: one row of plain atomics a core, each written by its core alone.
@safe final class CacheCounters: @unchecked Sendable {
  enum Field: Int, CaseIterable {
    case serializableHits, consistentHits, fixedHits, misses, shares
    // Twice each, so that what there is now is the difference.
    case inserted, removed, bytesIn, bytesOut, keepersBegun, keepersEnded
    // Why entries went.
    case byEvent, byWrite, byAuth, byCompaction, byAge, byRoom
    case refusedInserts, orderedReads, readIndexes
  }

  private static let row = (Field.allCases.count + 7) / 8 * 8
  private let cells: UnsafeMutablePointer<Atomic<UInt64>>
  private let cores: Int

  init(cores: Int) {
    self.cores = cores
    unsafe cells = .allocate(capacity: cores * Self.row)
    for index in 0..<cores * Self.row { unsafe (cells + index).initialize(to: Atomic(0)) }
  }

  deinit { unsafe cells.deallocate() }

  func add(_ field: Field, _ amount: Int = 1, core: Int) {
    precondition(core < cores)
    let at = core * Self.row + field.rawValue
    unsafe cells[at].store(
      cells[at].load(ordering: .relaxed) &+ UInt64(truncatingIfNeeded: amount), ordering: .relaxed)
  }

  subscript(field: Field) -> UInt64 {
    (0..<cores).reduce(0) { total, core in
      unsafe total &+ cells[core * Self.row + field.rawValue].load(ordering: .relaxed)
    }
  }

  /// What there is between two of them.
  func difference(_ more: Field, _ less: Field) -> UInt64 {
    let gone = self[less]
    let come = self[more]
    return come > gone ? come - gone : 0
  }
}
