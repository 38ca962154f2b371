extension RawSpan {
  /// The byte at `offset`, which must be below `byteCount` (checked).
  func octet(_ offset: Int) -> UInt8 { unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self) }

  /// Two bytes in network order; both must exist (checked).
  func number16(_ offset: Int) -> UInt16 { UInt16(octet(offset)) << 8 | UInt16(octet(offset + 1)) }

  /// Four bytes in network order; all must exist (checked).
  func number32(_ offset: Int) -> UInt32 {
    UInt32(number16(offset)) << 16 | UInt32(number16(offset + 2))
  }

  /// Eight bytes in network order; all must exist (checked).
  func number64(_ offset: Int) -> UInt64 {
    UInt64(number32(offset)) << 32 | UInt64(number32(offset + 4))
  }

  /// A copy of the bytes in `range`, which must lie within the span (checked).
  func octets(_ range: Range<Int>) -> [UInt8] { range.map { octet($0) } }

  /// The bytes in `range` as text; what is not UTF-8 is replaced.
  func text(_ range: Range<Int>) -> String { String(decoding: octets(range), as: UTF8.self) }

  /// Whether the bytes at the start are those of `prefix`, as far as there are any.
  func agrees(with prefix: [UInt8]) -> Bool {
    (0..<Swift.min(byteCount, prefix.count)).allSatisfy { octet($0) == prefix[$0] }
  }
}
