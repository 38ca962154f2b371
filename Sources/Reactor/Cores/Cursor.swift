public import Synchronization

/// A counter that one thread advances and others watch, on 128 bytes of its own: x86 fetches cache lines in
/// pairs, so with less, one core's writes would slow down its neighbours'. Allocate with `alignment`.
@usableFromInline struct Cursor: ~Copyable {
  /// Only ever counts up.
  @usableFromInline let position = Atomic<UInt64>(0)
  /// What the thread that advances this counter last saw of the others; touched by that thread only.
  @usableFromInline var seen: UInt64 = 0
  private let apart = InlineArray<14, UInt64>(repeating: 0)

  init() {}

  static var alignment: Int { 128 }

  /// Cursors at zero, each on lines of its own.
  static func allocate(_ count: Int) -> UnsafeMutablePointer<Cursor> {
    let raw = UnsafeMutableRawPointer.allocate(
      byteCount: MemoryLayout<Cursor>.stride * count, alignment: alignment)
    let cursors = unsafe raw.bindMemory(to: Cursor.self, capacity: count)
    for index in 0..<count { unsafe (cursors + index).initialize(to: Cursor()) }
    return unsafe cursors
  }

  static func free(_ cursors: UnsafeMutablePointer<Cursor>, _ count: Int) {
    unsafe cursors.deinitialize(count: count)
    unsafe UnsafeMutableRawPointer(cursors).deallocate()
  }
}
