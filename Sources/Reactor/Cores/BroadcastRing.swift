public import Synchronization

/// One writer's events, read by several threads, each at its own pace.
///
/// An event is a small plain value such as a revision and a handle, written once however many read it. Nobody
/// ever waits: when a reader is a whole ring behind, `push` says so, and the owner may cut that reader loose
/// with `detach`. The reader learns of it from `drain`, catches up by other means, and attaches again at the
/// end. An event that `drain` had copied just before the cut is still delivered, so what events *refer to* may
/// only be reused once the reader has attached again.
///
/// One thread pushes; each reader number belongs to one thread, which drains and attaches. `detach` and `lag`
/// may be called by the writer and by that reader's thread.
///
/// Orderings, besides the usual pair (the writer *releases* `tail` after the event; a reader *acquires* it
/// before the copy) and its mirror image (a reader *releases* its cursor after the copy; the writer *acquires*
/// it before it overwrites):
/// - *Cut loose in mid-copy.* The writer may overwrite what a detached reader is copying. Slots are therefore
///   atomic words, stored releasing and loaded acquiring: a reader that got a newer word also sees the earlier
///   `detach` when it looks at its cursor next, and drops the copy. On x86 these are ordinary moves.
/// - *Attaching while the writer looks for the slowest.* See `attach`.
@safe public final class BroadcastRing<Event: BitwiseCopyable & Sendable>: @unchecked Sendable {
  // What must hold: for each attached reader the slots from its cursor up to tail are not overwritten.

  /// The number of events a reader may be behind.
  public let capacity: Int
  /// The number of readers, attached or not.
  public let readers: Int

  @usableFromInline let mask: UInt64
  @usableFromInline let words: UnsafeMutablePointer<Atomic<UInt64>>
  /// One for each reader, then `tail`, then `scans`. The tail's `seen` is the writer's stale copy of the slowest
  /// reader: too low at worst, it spares the writer the look at all cursors until the ring seems full.
  @usableFromInline let cursors: UnsafeMutablePointer<Cursor>

  @usableFromInline static var detached: UInt64 { .max }
  @usableFromInline static var wordsPerEvent: Int { max(1, (MemoryLayout<Event>.size + 7) / 8) }

  /// A ring in which all readers are attached at the start.
  ///
  /// - Parameters:
  ///   - capacity: events that fit, a power of two up to 2^24.
  ///   - readers: the fixed number of readers.
  public init(capacity: Int, readers: Int) {
    precondition(capacity > 0 && capacity <= 1 << 24 && capacity & (capacity - 1) == 0)
    precondition(readers >= 0 && readers <= 1 << 16)
    self.capacity = capacity
    self.readers = readers
    mask = UInt64(capacity - 1)
    let count = capacity * Self.wordsPerEvent
    unsafe words = .allocate(capacity: count)
    for word in 0..<count { unsafe (words + word).initialize(to: Atomic(0)) }
    unsafe cursors = Cursor.allocate(readers + 2)
  }

  deinit {
    unsafe Cursor.free(cursors, readers + 2)
    unsafe words.deinitialize(count: capacity * Self.wordsPerEvent)
    unsafe words.deallocate()
  }

  // MARK: - Writer

  /// Publishes an event. False, and nothing happens, while some attached reader is a whole ring behind.
  @inlinable public func push(_ event: Event) -> Bool {
    let end = unsafe tail.pointee.position.load(ordering: .relaxed)
    if unsafe end &- tail.pointee.seen > mask {
      unsafe tail.pointee.seen = findSlowest(end: end)
      if unsafe end &- tail.pointee.seen > mask { return false }
    }
    store(event, at: end)
    unsafe tail.pointee.position.store(end &+ 1, ordering: .releasing)
    return true
  }

  @usableFromInline func findSlowest(end: UInt64) -> UInt64 {
    _ = unsafe scans.pointee.position.wrappingAdd(1, ordering: .acquiringAndReleasing)
    var slowest = end
    for reader in 0..<readers {
      let position = unsafe cursors[reader].position.load(ordering: .acquiring)
      if position != Self.detached { slowest = min(slowest, position) }
    }
    return slowest
  }

  /// Cuts a reader loose: the writer no longer waits for it. Harmless when repeated.
  public func detach(_ reader: Int) {
    precondition(reader >= 0 && reader < readers)
    unsafe cursors[reader].position.store(Self.detached, ordering: .releasing)
  }

  /// How many events a reader has before it, up to `capacity` (for a moment more while it attaches); nil when it
  /// is detached. A snapshot if other threads are at work.
  public func lag(_ reader: Int) -> Int? {
    precondition(reader >= 0 && reader < readers)
    let position = unsafe cursors[reader].position.load(ordering: .acquiring)
    guard position != Self.detached else { return nil }
    // The cursor was read first, and tail never lies before a cursor.
    return Int(unsafe tail.pointee.position.load(ordering: .acquiring) &- position)
  }

  // MARK: - Reader

  /// Hands over what has been published, oldest first, at most `limit` events; the writer gets the room back at
  /// the end. Returns their number, or nil when the reader is or was meanwhile cut loose: then events after the
  /// last one delivered may be lost to it.
  @inlinable public func drain(reader: Int, limit: Int = .max, _ body: (Event) -> Void) -> Int? {
    precondition(reader >= 0 && reader < readers)
    let start = unsafe cursors[reader].position.load(ordering: .relaxed)
    guard start != Self.detached else { return nil }
    let published = unsafe tail.pointee.position.load(ordering: .acquiring) &- start
    let count = min(Int(published), max(0, limit))
    guard count > 0 else { return 0 }
    for offset in 0..<UInt64(count) {
      let event = load(from: start &+ offset)
      guard unsafe cursors[reader].position.load(ordering: .relaxed) == start else { return nil }
      body(event)
    }
    let (moved, _) = unsafe cursors[reader].position.compareExchange(
      expected: start, desired: start &+ UInt64(count), successOrdering: .releasing, failureOrdering: .relaxed
    )
    return moved ? count : nil
  }

  /// Starts again at the end of what is published. No effect on a reader that is attached.
  ///
  /// The writer might look for the slowest at this very moment, miss this reader, and overwrite what it is about
  /// to read. Both sides therefore add to `scans`, and additions happen in one order. If the writer's look comes
  /// later, it acquires the cursor set here and spares those slots. If it came earlier, the tail acquired here
  /// is no older than that look, and everything the writer then held for readable lies before it.
  public func attach(_ reader: Int) {
    precondition(reader >= 0 && reader < readers)
    while unsafe cursors[reader].position.load(ordering: .relaxed) == Self.detached {
      takePlace(reader, at: unsafe tail.pointee.position.load(ordering: .acquiring))
    }
  }

  /// Attaches at a tail that may be long out of date, and moves up to one that cannot be.
  func takePlace(_ reader: Int, at provisional: UInt64) {
    unsafe cursors[reader].position.store(provisional, ordering: .releasing)
    _ = unsafe scans.pointee.position.wrappingAdd(1, ordering: .acquiringAndReleasing)
    let end = unsafe tail.pointee.position.load(ordering: .acquiring)
    // Fails only when the owner cut the reader loose in between.
    _ = unsafe cursors[reader].position.compareExchange(
      expected: provisional, desired: end, successOrdering: .releasing, failureOrdering: .relaxed)
  }

  // MARK: - Storage

  @inlinable var tail: UnsafeMutablePointer<Cursor> { unsafe cursors + readers }
  @inlinable var scans: UnsafeMutablePointer<Cursor> { unsafe cursors + readers + 1 }

  @inlinable func store(_ event: Event, at position: UInt64) {
    let first = unsafe words + Int(position & mask) * Self.wordsPerEvent
    unsafe withUnsafeTemporaryAllocation(byteCount: Self.wordsPerEvent * 8, alignment: 16) { copy in
      unsafe copy.storeBytes(of: event, as: Event.self)
      for word in 0..<Self.wordsPerEvent {
        unsafe first[word].store(copy.load(fromByteOffset: word * 8, as: UInt64.self), ordering: .releasing)
      }
    }
  }

  @inlinable func load(from position: UInt64) -> Event {
    let first = unsafe words + Int(position & mask) * Self.wordsPerEvent
    return unsafe withUnsafeTemporaryAllocation(byteCount: Self.wordsPerEvent * 8, alignment: 16) { copy in
      for word in 0..<Self.wordsPerEvent {
        unsafe copy.storeBytes(
          of: first[word].load(ordering: .acquiring), toByteOffset: word * 8, as: UInt64.self)
      }
      return unsafe copy.loadUnaligned(as: Event.self)
    }
  }
}
