/// What a completion is about, in the 64 bits that io_uring and epoll carry for us:
/// `[ 63…60 owner | 59…56 operation | 55…32 slot | 31…0 generation ]`.
public struct Token: Equatable, Hashable, Sendable {
  /// The packed form. Zero is never a valid token (owner 0 is reserved for the reactor itself).
  public let rawValue: UInt64

  /// Rewraps what a kernel handed back.
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// - Parameters:
  ///   - owner: which part of a core the completion belongs to, 0…15.
  ///   - operation: the owner's own numbering, 0…15.
  ///   - handle: the slab slot that the operation works for.
  @inlinable public init(owner: UInt8, operation: UInt8, handle: Handle) {
    assert(owner < 16 && operation < 16)
    rawValue =
      UInt64(owner) << 60 | UInt64(operation) << 56 | UInt64(handle.slot) << 32 | UInt64(handle.generation)
  }

  /// Which part of a core the completion belongs to.
  @inlinable public var owner: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 60) }
  /// The owner's own numbering.
  @inlinable public var operation: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 56) & 15 }
  /// The slab slot that the operation works for.
  @inlinable public var handle: Handle {
    Handle(
      slot: UInt32(truncatingIfNeeded: rawValue >> 32) & 0xFF_FFFF,
      generation: UInt32(truncatingIfNeeded: rawValue))
  }
}
