/// Bytes that one direction keeps in memory of its own, because its destination takes none right now.
///
/// Empty it costs 24 bytes and no memory. It grows by what is added, at most the core's receive buffers at a time, since
/// the direction asks for no more while anything is in it.
@safe struct Backlog: ~Copyable {
  private var storage: UnsafeMutableRawPointer?
  private var start: UInt32 = 0
  private var end: UInt32 = 0

  deinit { unsafe storage?.deallocate() }

  /// Bytes waiting.
  var count: Int { Int(end - start) }

  /// True when nothing waits.
  var isEmpty: Bool { start == end }

  /// The bytes, valid until the next change.
  var bytes: UnsafeRawBufferPointer {
    guard let storage = unsafe storage else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
    return unsafe UnsafeRawBufferPointer(start: storage + Int(start), count: count)
  }

  /// Adds `length` bytes, which `write` puts where it is told.
  mutating func append(_ length: Int, _ write: (UnsafeMutableRawPointer) -> Void) {
    let larger = UnsafeMutableRawPointer.allocate(byteCount: count + length, alignment: 16)
    if let old = unsafe storage {
      unsafe larger.copyMemory(from: old + Int(start), byteCount: count)
      unsafe old.deallocate()
    }
    unsafe write(larger + count)
    end = UInt32(count + length)
    start = 0
    unsafe storage = larger
  }

  /// Drops the first `amount` bytes; the memory goes with the last one.
  mutating func consume(_ amount: Int) {
    precondition(amount <= count)
    start += UInt32(amount)
    guard isEmpty else { return }
    unsafe storage?.deallocate()
    unsafe storage = nil
    start = 0
    end = 0
  }
}
