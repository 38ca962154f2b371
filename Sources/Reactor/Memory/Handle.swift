/// Names one occupant of a `Slab` slot. A handle outlives its occupant harmlessly: the generation no longer
/// matches, so a late completion finds nothing instead of the wrong connection.
public struct Handle: Equatable, Hashable, Sendable {
  /// Index into the slab, below 2^24.
  public let slot: UInt32
  /// Odd while the slot is occupied; bumped on insert and on remove.
  public let generation: UInt32

  /// Slots must be below 2^24, so that a handle and an operation fit into the 64 bits of a `Token`.
  @inlinable public init(slot: UInt32, generation: UInt32) {
    assert(slot < 1 << 24)
    self.slot = slot
    self.generation = generation
  }
}
