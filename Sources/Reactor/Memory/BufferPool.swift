internal import Glibc

/// The receive buffers of one core: one small block of memory cut into equal pieces, named by index.
///
/// About 1 MiB in all: receive buffers are used in ring order, so a large pool is always cold in the cache. A buffer is
/// either free, with the kernel, or held by exactly one owner, who links it into a `BufferQueue` and releases it
/// through `Kernel.release`.
@safe public final class BufferPool {
  /// "No buffer": never a valid index.
  public static let none = UInt16.max

  /// Bytes in a buffer.
  public let size: Int
  /// How many buffers there are, a power of two below 32,768.
  public let count: Int
  /// Buffers that are held by somebody at the moment.
  public package(set) var held = 0

  package struct Entry {
    package var next: UInt16 = BufferPool.none
    var offset: UInt16 = 0
    var length: UInt16 = 0
  }

  private let base: UnsafeMutableRawPointer
  package let entries: UnsafeMutablePointer<Entry>

  /// Maps `count × size` bytes; pages cost nothing until they are first used.
  ///
  /// - Parameters:
  ///   - count: a power of two, at most 32,768.
  ///   - size: bytes each, at most 65,535 so that a length fits into 16 bits.
  public init(count: Int, size: Int) {
    precondition(count > 0 && count & (count - 1) == 0 && count <= 32_768)
    precondition(size > 0 && size < 65_536)
    self.count = count
    self.size = size
    let mapped = unsafe mmap(nil, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory = unsafe mapped, unsafe memory != UnsafeMutableRawPointer(bitPattern: -1) else {
      preconditionFailure("no address space for \(count * size) bytes of receive buffers")
    }
    unsafe base = memory
    unsafe entries = .allocate(capacity: count)
    unsafe entries.initialize(repeating: Entry(), count: count)
  }

  deinit {
    unsafe munmap(base, count * size)
    unsafe entries.deallocate()
  }

  /// The whole of a buffer's memory.
  package func memory(_ index: UInt16) -> UnsafeMutableRawBufferPointer {
    precondition(Int(index) < count)
    return unsafe UnsafeMutableRawBufferPointer(start: base + Int(index) * size, count: size)
  }

  /// What was received into a buffer just handed out, before it joins a queue. Valid until the buffer is released.
  public func received(_ index: UInt16, _ length: Int) -> UnsafeRawBufferPointer {
    precondition(length <= size)
    return unsafe UnsafeRawBufferPointer(rebasing: memory(index)[..<length])
  }

  /// The bytes of a held buffer that have not been consumed yet. Valid until the buffer is released.
  public func bytes(_ index: UInt16) -> UnsafeRawBufferPointer {
    let entry = unsafe entries[Int(index)]
    let whole = unsafe memory(index)
    return unsafe UnsafeRawBufferPointer(
      rebasing: whole[Int(entry.offset)..<Int(entry.offset) + Int(entry.length)])
  }
}

/// Received bytes waiting to leave: a chain of held buffers in order of arrival, linked through the pool, so that it
/// costs its owner twelve bytes however long it is.
public struct BufferQueue {
  package private(set) var head = BufferPool.none
  private var tail = BufferPool.none
  /// Buffers in the chain.
  public private(set) var count: UInt16 = 0
  /// Bytes in the chain.
  public private(set) var byteCount = 0

  /// An empty queue.
  public init() {}

  /// True when nothing waits.
  public var isEmpty: Bool { count == 0 }

  /// Takes over a buffer whose first `length` bytes were just received.
  public mutating func append(_ buffer: UInt16, length: Int, in pool: BufferPool) {
    precondition(length > 0 && length <= pool.size)
    unsafe pool.entries[Int(buffer)] = .init(next: BufferPool.none, offset: 0, length: UInt16(length))
    if count == 0 { head = buffer } else { unsafe pool.entries[Int(tail)].next = buffer }
    tail = buffer
    count += 1
    byteCount += length
  }

  /// Drops the first `amount` bytes, at most `byteCount`; buffers that become empty go back to `kernel`.
  public mutating func consume(_ amount: Int, _ kernel: Kernel) {
    precondition(amount <= byteCount)
    var left = amount
    while left > 0 {
      let length = unsafe Int(kernel.buffers.entries[Int(head)].length)
      guard left >= length else {
        unsafe kernel.buffers.entries[Int(head)].offset += UInt16(left)
        unsafe kernel.buffers.entries[Int(head)].length -= UInt16(left)
        break
      }
      left -= length
      popFirst(kernel)
    }
    byteCount -= amount
  }

  /// Gives every buffer back to `kernel`.
  public mutating func removeAll(_ kernel: Kernel) { consume(byteCount, kernel) }

  /// Copies all waiting bytes to `destination`, which must have room for `byteCount`.
  public func copy(to destination: UnsafeMutableRawPointer, in pool: BufferPool) {
    var place = unsafe destination
    var buffer = head
    while buffer != BufferPool.none {
      let bytes = unsafe pool.bytes(buffer)
      if let start = bytes.baseAddress { unsafe place.copyMemory(from: start, byteCount: bytes.count) }
      unsafe place += bytes.count
      buffer = unsafe pool.entries[Int(buffer)].next
    }
  }

  /// Lists the waiting bytes for a gathered send; returns how many pieces were written and their bytes.
  func gather(into pieces: UnsafeMutablePointer<iovec>, room: Int, in pool: BufferPool) -> (Int, Int) {
    var buffer = head
    var written = 0
    var total = 0
    while buffer != BufferPool.none, written < room {
      let bytes = unsafe pool.bytes(buffer)
      unsafe pieces[written] = iovec(
        iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
      written += 1
      total += bytes.count
      buffer = unsafe pool.entries[Int(buffer)].next
    }
    return (written, total)
  }

  private mutating func popFirst(_ kernel: Kernel) {
    let buffer = head
    head = unsafe kernel.buffers.entries[Int(buffer)].next
    count -= 1
    if count == 0 { tail = BufferPool.none }
    kernel.release(buffer)
  }
}
