public import Synchronization

/// Wakes a sleeping reader once per batch instead of once per message.
///
/// A writer publishes its message and then rings; only the first ring since the reader last answered asks for a
/// real wake-up (a system call). The reader, once woken, answers and *then* drains. Several writers may share
/// the bell of one reader.
///
/// Why no wake-up is lost: `ring` and `answer` both read and write the flag in one step, and such steps on one
/// flag happen in one order that all threads agree on. A ring that comes after an answer finds the flag down
/// and wakes the reader again. A ring that comes before it is what that answer reads, directly or through
/// later rings; the ring *released* the message and the answer *acquires* it, so the drain that follows finds
/// it. For this reason `ring` may not skip the exchange after a mere look at the flag (the look could be older
/// than the answer while the message is newer than the drain), and `answer` may not be a mere store.
@safe public final class Doorbell: Sendable {
  // Between 128 bytes of its own: every writer stores here, and their neighbours should not feel it.
  private let before = InlineArray<15, UInt64>(repeating: 0)
  @usableFromInline let isRung = Atomic<Bool>(false)
  private let after = InlineArray<16, UInt64>(repeating: 0)

  /// Silent.
  public init() {}

  /// Writer's side, after publishing. True if the caller must wake the reader.
  @inlinable public func ring() -> Bool { !isRung.exchange(true, ordering: .acquiringAndReleasing) }

  /// Reader's side, before draining. Whether anybody rang since the last answer.
  @inlinable @discardableResult public func answer() -> Bool {
    isRung.exchange(false, ordering: .acquiringAndReleasing)
  }
}
