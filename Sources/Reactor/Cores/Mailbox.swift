public import Synchronization

/// A bounded queue from one thread to another. Each message is moved, never copied.
///
/// Exactly one thread at a time may push and exactly one may pop. "Full" is an ordinary answer and hands the
/// message back. A reader that sleeps is woken through a `Doorbell`.
///
/// Orderings. A slot changes hands twice, and each time through one counter: the writer fills it and *releases*
/// `tail`, which the reader *acquires* before it moves the message out; the reader then *releases* `head`,
/// which the writer *acquires* before it fills the slot again. Each side reads its own counter relaxed, since
/// nobody else stores to it, and looks at the other's only when its stale copy says full or empty: the copy
/// lags behind, so it can only be wrong towards waiting.
@safe public final class Mailbox<Message: ~Copyable & Sendable>: @unchecked Sendable {
  // What must hold: exactly the slots from head up to tail are initialized, and tail - head <= capacity.

  /// The number of messages that fit.
  public let capacity: Int

  @usableFromInline let mask: UInt64
  @usableFromInline let slots: UnsafeMutablePointer<Message>
  /// `position` is the tail, `seen` the stale copy of the head.
  @usableFromInline let writer: UnsafeMutablePointer<Cursor>
  /// `position` is the head, `seen` the stale copy of the tail.
  @usableFromInline let reader: UnsafeMutablePointer<Cursor>

  /// Room for `capacity` messages, rounded up to a power of two; at most 2^24.
  public init(capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 24)
    let rounded = 1 << (Int.bitWidth - (capacity - 1).leadingZeroBitCount)
    self.capacity = rounded
    mask = UInt64(rounded - 1)
    unsafe slots = .allocate(capacity: rounded)
    unsafe writer = Cursor.allocate(2)
    unsafe reader = writer + 1
  }

  deinit {
    while pop() != nil {}
    unsafe Cursor.free(writer, 2)
    unsafe slots.deallocate()
  }

  /// Writer's side. Nil when the message is on its way, the message itself when there is no room.
  @inlinable public func push(_ message: consuming Message) -> Message? {
    let tail = unsafe writer.pointee.position.load(ordering: .relaxed)
    if unsafe tail &- writer.pointee.seen > mask {
      unsafe writer.pointee.seen = reader.pointee.position.load(ordering: .acquiring)
      if unsafe tail &- writer.pointee.seen > mask { return message }
    }
    unsafe (slots + Int(tail & mask)).initialize(to: message)
    unsafe writer.pointee.position.store(tail &+ 1, ordering: .releasing)
    return nil
  }

  /// Reader's side. The oldest message, or nil when there is none.
  @inlinable public func pop() -> Message? {
    let head = unsafe reader.pointee.position.load(ordering: .relaxed)
    if unsafe head == reader.pointee.seen {
      unsafe reader.pointee.seen = writer.pointee.position.load(ordering: .acquiring)
      if unsafe head == reader.pointee.seen { return nil }
    }
    let message = unsafe (slots + Int(head & mask)).move()
    unsafe reader.pointee.position.store(head &+ 1, ordering: .releasing)
    return message
  }
}
