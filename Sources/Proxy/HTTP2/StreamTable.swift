internal import Reactor

/// The open streams of one connection by number: open addressing in one block of the core's pool.
///
/// Positions are good until the next insertion or removal.
@safe struct StreamTable: ~Copyable {
  private static let least = 8
  /// A table of this size is kept when streams go.
  private static let kept = 64

  private(set) var count = 0
  /// Changes with every insertion and removal.
  private(set) var version: UInt32 = 0
  private var slots: UnsafeMutablePointer<HTTP2Stream>?
  private var block = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private(set) var capacity = 0
  private let seed: UInt32
  private unowned(unsafe) let pool: BlockPool

  init(_ context: HTTP2Context) {
    seed = context.hashSeed
    unsafe pool = context.pool
  }

  deinit { if unsafe block.count > 0 { unsafe pool.give(block) } }

  /// The stream at a position that `find`, `insert` or a loop up to `capacity` gave.
  subscript(position: Int) -> HTTP2Stream {
    _read {
      guard let slots = unsafe slots, position >= 0, position < capacity else {
        preconditionFailure("no such position")
      }
      yield unsafe slots[position]
    }
    _modify {
      guard let slots = unsafe slots, position >= 0, position < capacity else {
        preconditionFailure("no such position")
      }
      yield unsafe &slots[position]
    }
  }

  /// Where the stream is, if it is open.
  func find(_ id: UInt32) -> Int? {
    guard count > 0, let slots = unsafe slots else { return nil }
    var position = home(id)
    while unsafe slots[position].id != id {
      if unsafe slots[position].id == 0 { return nil }
      position = (position &+ 1) & (capacity &- 1)
    }
    return id == 0 ? nil : position
  }

  /// Adds a stream that is not there yet.
  mutating func insert(_ stream: HTTP2Stream) -> Int {
    precondition(stream.id != 0)
    if (count &+ 1) &* 4 > capacity &* 3 { resize(max(Self.least, capacity &* 2)) }
    count &+= 1
    version &+= 1
    return place(stream)
  }

  /// Takes a stream out; those behind it that were pushed along by it move up.
  mutating func remove(_ position: Int) {
    guard let slots = unsafe slots, position < capacity, unsafe slots[position].id != 0 else { return }
    let mask = capacity &- 1
    var hole = position
    var next = (hole &+ 1) & mask
    while unsafe slots[next].id != 0 {
      let distance = (next &- home(unsafe slots[next].id)) & mask
      if distance >= (next &- hole) & mask {
        unsafe slots[hole] = slots[next]
        hole = next
      }
      next = (next &+ 1) & mask
    }
    unsafe slots[hole].id = 0
    count &-= 1
    version &+= 1
    // Far below the share at which it grows, so that a few streams coming and going do not resize it each time.
    if capacity > Self.kept, count &* 8 < capacity { resize(capacity / 4) }
  }

  /// Forgets all streams and returns the memory.
  mutating func removeAll() {
    if unsafe block.count > 0 { unsafe pool.give(block) }
    unsafe block = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    unsafe slots = nil
    count = 0
    capacity = 0
    version &+= 1
  }

  private func home(_ id: UInt32) -> Int {
    Int((id &* seed) >> UInt32(truncatingIfNeeded: 32 &- capacity.trailingZeroBitCount))
  }

  private func place(_ stream: HTTP2Stream) -> Int {
    guard let slots = unsafe slots else { preconditionFailure("a table without memory") }
    var position = home(stream.id)
    while unsafe slots[position].id != 0 { position = (position &+ 1) & (capacity &- 1) }
    unsafe slots[position] = stream
    return position
  }

  private mutating func resize(_ size: Int) {
    let (oldSlots, oldBlock, oldCapacity) = unsafe (slots, block, capacity)
    unsafe block = pool.take(size &* MemoryLayout<HTTP2Stream>.stride)
    let fresh = unsafe block.bindMemory(to: HTTP2Stream.self)
    unsafe fresh.initialize(repeating: HTTP2Stream())
    unsafe slots = fresh.baseAddress
    capacity = size
    guard let oldSlots = unsafe oldSlots else { return }
    for position in 0..<oldCapacity where unsafe oldSlots[position].id != 0 {
      _ = unsafe place(oldSlots[position])
    }
    unsafe pool.give(oldBlock)
  }
}
