/// Bytes in one piece of memory: appended at the end, consumed from the front.
///
/// The memory comes from the core's pool with the first byte and returns to it with the last one, so that an idle owner
/// holds none; it then begins with as much as it needed before. Pointers into it are good until the next change.
@safe public struct ByteBuffer: ~Copyable {
  private var block = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private var start = 0
  private var end = 0
  /// What it came to hold before it was empty last: so much is taken at once, instead of growing to it step by step.
  private var expected: Int32 = 0
  /// The core's pool, which outlives everything on the core.
  private unowned(unsafe) let pool: BlockPool

  /// More would be much, where many have needed much once and need a little at the same time.
  private static let mostExpected = 8 << 10

  /// An empty buffer without memory.
  public init(_ pool: BlockPool) { unsafe self.pool = pool }

  deinit { if unsafe block.count > 0 { unsafe pool.give(block) } }

  /// Bytes waiting.
  public var count: Int { end &- start }
  /// True when nothing waits.
  public var isEmpty: Bool { start == end }

  /// What waits, oldest byte first.
  public var bytes: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(start: block.baseAddress?.advanced(by: start), count: count)
  }

  /// The same, to be changed in place.
  package var mutableBytes: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: block.baseAddress?.advanced(by: start), count: count)
  }

  /// Room for at least `size` more bytes behind what waits; fill it and `commit`.
  public mutating func reserve(_ size: Int) -> UnsafeMutableRawBufferPointer {
    if unsafe block.count &- end < size { makeRoom(size) }
    return unsafe UnsafeMutableRawBufferPointer(rebasing: block[end...])
  }

  /// The first `size` bytes of the room reserved last now count as waiting.
  public mutating func commit(_ size: Int) {
    unsafe precondition(size >= 0 && size <= block.count &- end)
    end &+= size
    if isEmpty { giveBack() }
  }

  /// Adds a copy of `bytes`, which must not lie in this buffer.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 0 else { return }
    unsafe reserve(bytes.count).copyMemory(from: bytes)
    end &+= bytes.count
  }

  /// Adds one byte.
  public mutating func append(_ byte: UInt8) {
    unsafe reserve(1)[0] = byte
    end &+= 1
  }

  /// Adds a constant text.
  public mutating func append(_ text: StaticString) {
    unsafe append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// Adds the bytes of an array.
  public mutating func append(_ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe append($0) }
  }

  /// Drops the first `amount` bytes, at most `count`.
  public mutating func consume(_ amount: Int) {
    precondition(amount >= 0 && amount <= count)
    start &+= amount
    if isEmpty { giveBack() }
  }

  /// Drops what lies behind the first `size` bytes.
  public mutating func truncate(to size: Int) {
    precondition(size >= 0 && size <= count)
    end = start &+ size
    if isEmpty { giveBack() }
  }

  /// Drops everything and returns the memory.
  public mutating func removeAll() {
    start = end
    giveBack()
  }

  private mutating func giveBack() {
    if end > 0 { expected = Int32(min(end, Self.mostExpected)) }
    start = 0
    end = 0
    guard unsafe block.count > 0 else { return }
    unsafe pool.give(block)
    unsafe block = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  }

  private mutating func makeRoom(_ size: Int) {
    let waiting = count
    // Moving the bytes down is only worth it when most of the block has been consumed: else every append would move them.
    if unsafe start > block.count / 2, unsafe waiting &+ size <= block.count {
      unsafe block.copyMemory(from: bytes)
    } else {
      let larger = unsafe pool.take(max(waiting &+ size, waiting == 0 ? Int(expected) : waiting &* 2))
      unsafe larger.copyMemory(from: bytes)
      if unsafe block.count > 0 { unsafe pool.give(block) }
      unsafe block = larger
    }
    start = 0
    end = waiting
  }
}
