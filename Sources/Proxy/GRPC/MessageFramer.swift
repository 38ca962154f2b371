/// Finds gRPC's messages in a body that arrives in pieces: five bytes of header (a flag, a length), then the
/// message.
///
/// It keeps nothing but its place, so that a relay can refuse a message that is too long when its header is
/// there, and pass the rest on as it comes.
struct MessageFramer {
  /// Bytes before each message.
  static let headerSize = 5

  /// One step through a piece of the body.
  enum Step: Equatable {
    /// A message begins. The flag is 0, or 1 if it is compressed; other values are not gRPC, which the caller
    /// judges.
    case header(flag: UInt8, length: Int)
    /// These bytes of the piece belong to the message that began last; `isLast` with the end of the message,
    /// also if that is empty.
    case payload(Range<Int>, isLast: Bool)
  }

  /// Bytes of the header that are there, 0 ..< 5; 5 inside a message.
  private var headerBytes = 0
  private var flag: UInt8 = 0
  private var length: UInt32 = 0
  /// Bytes of the message that are still to come.
  private var left = 0

  /// True where a body may end.
  var isBetweenMessages: Bool { headerBytes == 0 }

  /// Bytes of the message begun last that have not come yet; 0 while its header is incomplete.
  var awaited: Int { left }

  /// Goes on at `offset`, which it moves; `nil` when the piece is used up.
  mutating func next(_ piece: UnsafeRawBufferPointer, from offset: inout Int) -> Step? {
    if headerBytes == Self.headerSize { return payload(piece.count, from: &offset) }
    while offset < piece.count {
      let byte = unsafe piece[offset]
      offset += 1
      headerBytes += 1
      if headerBytes == 1 {
        flag = byte
        length = 0
        continue
      }
      length = length << 8 | UInt32(byte)
      guard headerBytes == Self.headerSize else { continue }
      left = Int(length)
      return .header(flag: flag, length: left)
    }
    return nil
  }

  private mutating func payload(_ end: Int, from offset: inout Int) -> Step? {
    guard left > 0 else {
      headerBytes = 0
      return .payload(offset..<offset, isLast: true)
    }
    let amount = min(end - offset, left)
    guard amount > 0 else { return nil }
    defer { offset += amount }
    left -= amount
    if left == 0 { headerBytes = 0 }
    return .payload(offset..<offset + amount, isLast: left == 0)
  }

  /// Writes the header of a message that is not compressed; there must be room for `headerSize` bytes.
  static func writeHeader(length: UInt32, into room: UnsafeMutableRawBufferPointer) {
    unsafe room[0] = 0
    for place in 0..<4 {
      unsafe room[1 + place] = UInt8(truncatingIfNeeded: length >> (24 - 8 * UInt32(place)))
    }
  }
}
