internal import Glibc

/// Blocks of memory for one core, handed out and taken back without a system call in steady state.
///
/// Sizes are powers of two from 512 B to 1 MiB, one free list each; the link lies in the free block itself. What a list
/// holds beyond its share goes back to the system at once, and what is not needed any more with `trim`, so that a burst does
/// not stay for ever. Belongs to one thread.
@safe public final class BlockPool {
  private static let smallest = 9
  private static let largest = 20
  private static let keptAList = 2 << 20

  private var free = unsafe InlineArray<12, UnsafeMutableRawPointer?>(repeating: nil)
  private var freeBytes = InlineArray<12, Int>(repeating: 0)
  /// The fewest bytes that a list has held since it was trimmed: nobody has needed them.
  private var unused = InlineArray<12, Int>(repeating: 0)

  /// Bytes handed out and not given back, with the rounding up.
  public private(set) var bytesInUse = 0

  /// An empty pool.
  public init() {}

  deinit {
    for list in 0..<12 {
      while let block = unsafe free[list] {
        unsafe free[list] = block.load(as: UnsafeMutableRawPointer?.self)
        unsafe block.deallocate()
      }
    }
  }

  private static func list(for size: Int) -> Int? {
    let bits = size <= 1 ? 0 : Int.bitWidth - (size - 1).leadingZeroBitCount
    return bits > largest ? nil : max(bits, smallest) - smallest
  }

  /// A block of at least `size` bytes; its contents are arbitrary. Larger ones than 1 MiB come from the system each time.
  package func take(_ size: Int) -> UnsafeMutableRawBufferPointer {
    guard let list = Self.list(for: size) else {
      bytesInUse += size
      return .allocate(byteCount: size, alignment: 16)
    }
    let rounded = 1 << (list + Self.smallest)
    bytesInUse += rounded
    guard let block = unsafe pop(list) else { return .allocate(byteCount: rounded, alignment: 16) }
    unused[list] = min(unused[list], freeBytes[list])
    return unsafe UnsafeMutableRawBufferPointer(start: block, count: rounded)
  }

  private func pop(_ list: Int) -> UnsafeMutableRawPointer? {
    guard let block = unsafe free[list] else { return nil }
    unsafe free[list] = block.load(as: UnsafeMutableRawPointer?.self)
    freeBytes[list] -= 1 << (list + Self.smallest)
    return unsafe block
  }

  /// Gives back half of what nobody has needed since the last call, list by list: a load that comes in waves keeps most of
  /// what it needs.
  ///
  /// - Returns: bytes given back.
  public func trim() -> Int {
    var given = 0
    for list in 0..<12 {
      let size = 1 << (list + Self.smallest)
      for _ in 0..<unused[list] / 2 / size {
        guard let block = unsafe pop(list) else { break }
        unsafe block.deallocate()
        given += size
      }
      unused[list] = freeBytes[list]
    }
    return given
  }

  /// Takes back what `take` gave.
  package func give(_ block: UnsafeMutableRawBufferPointer) {
    bytesInUse -= block.count
    guard let start = block.baseAddress, let list = Self.list(for: block.count),
      freeBytes[list] < Self.keptAList
    else { return unsafe block.deallocate() }
    unsafe start.storeBytes(of: free[list], as: UnsafeMutableRawPointer?.self)
    unsafe free[list] = start
    freeBytes[list] += block.count
  }
}
