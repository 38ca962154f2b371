/// The end, or one step, of an operation given to a `Kernel`.
public struct Completion: Sendable {
  /// Which operation.
  public let token: Token
  /// What the system call would have returned: a count or descriptor, or a negative errno.
  public let result: Int32
  /// True when the operation goes on and will complete again (multishot accept and receive).
  public let more: Bool
  /// The receive buffer that now belongs to whoever handles this completion; `BufferPool.none` if there is none.
  public let buffer: UInt16

  /// - Parameter buffer: an index of the core's `BufferPool`, or `BufferPool.none`.
  @inlinable public init(token: Token, result: Int32, more: Bool = false, buffer: UInt16 = BufferPool.none) {
    self.token = token
    self.result = result
    self.more = more
    self.buffer = buffer
  }
}

/// What a turn of the kernel brought, in a room that grows to the largest turn seen and stays.
@safe public final class CompletionBatch {
  private var storage: UnsafeMutablePointer<Completion>
  private var capacity: Int
  /// How many completions the turn brought.
  public private(set) var count = 0

  /// - Parameter capacity: room at first; a larger turn doubles it.
  public init(capacity: Int = 256) {
    self.capacity = capacity
    unsafe storage = .allocate(capacity: capacity)
  }

  deinit { unsafe storage.deallocate() }

  /// True when nothing has completed.
  public var isEmpty: Bool { count == 0 }

  /// The completion at `index`, which must be below `count`.
  public subscript(index: Int) -> Completion {
    precondition(index < count)
    return unsafe storage[index]
  }

  /// Adds one completion at the end.
  public func append(_ completion: Completion) {
    if count == capacity { grow() }
    unsafe (storage + count).initialize(to: completion)
    count += 1
  }

  /// Corrects the outcome of a completion that was only assumed.
  func setResult(_ result: Int32, at index: Int) {
    precondition(index < count)
    let assumed = unsafe storage[index]
    unsafe storage[index] = Completion(token: assumed.token, result: result)
  }

  /// Forgets everything, keeping the room.
  public func removeAll() { count = 0 }

  private func grow() {
    let larger = UnsafeMutablePointer<Completion>.allocate(capacity: capacity * 2)
    unsafe larger.moveInitialize(from: storage, count: count)
    unsafe storage.deallocate()
    unsafe storage = larger
    capacity *= 2
  }
}
