/// Finds the revision in the header of a message that arrives in pieces, without keeping any of it.
///
/// In every answer of etcd's the header is the first field. What begins otherwise has no revision for us.
struct RevisionPeek {
  private enum Stage: UInt8 {
    case idle, tag, length, field, value
  }

  private var stage = Stage.idle
  private var isRevision = false
  private var shift: UInt8 = 0
  /// Bytes of the header still to come.
  private var left = 0
  private var value: UInt64 = 0
  private var revision: Int64 = 0

  /// It still has to see bytes.
  var isOpen: Bool { stage != .idle }

  /// A message begins.
  mutating func begin(isPlain: Bool) {
    self = RevisionPeek()
    if isPlain { stage = .tag }
  }

  /// Looks at a piece of it. The revision, once, with the header's last byte; 0 if the header has none.
  mutating func take(_ piece: UnsafeRawBufferPointer) -> Int64? {
    for index in 0..<piece.count {
      guard stage != .idle else { return nil }
      if unsafe step(piece[index]) { return revision }
    }
    return nil
  }

  /// True when the header has ended.
  private mutating func step(_ byte: UInt8) -> Bool {
    if stage == .tag {
      // Field 1, bytes.
      stage = byte == 0x0A ? .length : .idle
      return false
    }
    value |= UInt64(byte & 0x7F) << UInt64(shift)
    let isLast = byte < 0x80
    shift += 7
    if stage != .length { left -= 1 }
    guard isLast else {
      if shift > 63 || stage != .length && left <= 0 { stage = .idle }
      return false
    }
    defer {
      shift = 0
      value = 0
    }
    switch stage {
    case .length:
      left = Int(min(value, 1024))
      // A longer one is none of etcd's.
      stage = left == 1024 ? .idle : .field
      return isOver()
    case .field:
      isRevision = value == 3 << 3
      // Of a header's fields all are numbers.
      stage = value & 7 == 0 ? .value : .idle
    default:
      if isRevision { revision = Int64(bitPattern: value) }
      stage = .field
    }
    return isOver()
  }

  private mutating func isOver() -> Bool {
    guard stage == .field, left <= 0 else { return false }
    stage = .idle
    return left == 0
  }
}
