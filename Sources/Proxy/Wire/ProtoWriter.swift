internal import Reactor

/// A nested message that is being written.
struct ProtoMark {
  /// Where its tag starts in the buffer's bytes.
  fileprivate let tag: Int
  /// Where its length starts.
  fileprivate let length: Int
  /// Where its content starts.
  fileprivate let body: Int
}

/// Writing protobuf behind what a buffer holds. Numbers that are 0, and bytes that are empty, are not
/// written: that is how proto3 spells a default. Nothing may be consumed from the buffer while a nested
/// message is open.
extension ByteBuffer {
  /// Bytes of the longest varint.
  private static var longestVarint: Int { 10 }

  /// Bytes that `value` takes as a varint.
  static func varintSize(_ value: UInt64) -> Int {
    value < 0x80 ? 1 : (70 &- value.leadingZeroBitCount) / 7
  }

  mutating func appendVarint(_ value: UInt64) {
    let room = unsafe reserve(Self.longestVarint)
    unsafe commit(Self.write(value, into: room))
  }

  private static func write(_ value: UInt64, into room: UnsafeMutableRawBufferPointer) -> Int {
    var rest = value
    var size = 0
    while rest >= 0x80 {
      unsafe room[size] = UInt8(truncatingIfNeeded: rest) | 0x80
      rest >>= 7
      size &+= 1
    }
    unsafe room[size] = UInt8(truncatingIfNeeded: rest)
    return size &+ 1
  }

  private mutating func appendTag(_ number: Int, _ wire: ProtoWire) {
    appendVarint(UInt64(number) << 3 | UInt64(wire.rawValue))
  }

  mutating func appendField(_ number: Int, unsigned value: UInt64) {
    guard value != 0 else { return }
    appendTag(number, .varint)
    appendVarint(value)
  }

  mutating func appendField(_ number: Int, _ value: Int64) {
    appendField(number, unsigned: UInt64(bitPattern: value))
  }

  mutating func appendField(_ number: Int, _ value: Bool) { appendField(number, unsigned: value ? 1 : 0) }

  mutating func appendField(_ number: Int, _ bytes: UnsafeRawBufferPointer) {
    guard unsafe !bytes.isEmpty else { return }
    unsafe appendElement(number, bytes)
  }

  mutating func appendField(_ number: Int, _ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe appendField(number, $0) }
  }

  mutating func appendField(_ number: Int, _ text: String) { appendField(number, Array(text.utf8)) }

  /// A member of a repeated field, which is written even if it is empty.
  mutating func appendElement(_ number: Int, _ bytes: UnsafeRawBufferPointer) {
    appendTag(number, .bytes)
    appendVarint(UInt64(bytes.count))
    unsafe append(bytes)
  }

  mutating func appendElement(_ number: Int, _ text: String) {
    unsafe Array(text.utf8).withUnsafeBytes { unsafe appendElement(number, $0) }
  }

  /// A field of bytes made of two parts.
  mutating func appendField(_ number: Int, _ prefix: [UInt8], _ rest: UnsafeRawBufferPointer) {
    appendTag(number, .bytes)
    appendVarint(UInt64(prefix.count &+ rest.count))
    append(prefix)
    unsafe append(rest)
  }

  // MARK: Nested messages

  /// Starts a nested message. The closer `expected` is to its size, the less has to be moved at the end.
  mutating func openMessage(_ number: Int, expecting expected: Int = 0) -> ProtoMark {
    let tag = count
    appendTag(number, .bytes)
    let length = count
    appendVarint(UInt64(max(expected, 0)))
    return ProtoMark(tag: tag, length: length, body: count)
  }

  /// Ends the nested message that was opened last and writes its length in front, moving it if that takes
  /// another number of bytes than was left for it.
  mutating func closeMessage(_ mark: ProtoMark) {
    let size = count &- mark.body
    let place = mark.length
    let room = mark.body &- place
    let needed = Self.varintSize(UInt64(size))
    if needed > room {
      _ = unsafe reserve(needed &- room)
      commit(needed &- room)
    }
    if needed != room {
      let base = unsafe mutableBytes
      let target = unsafe UnsafeMutableRawBufferPointer(rebasing: base[(place &+ needed)...])
      unsafe target.copyMemory(from: UnsafeRawBufferPointer(rebasing: base[mark.body..<mark.body &+ size]))
    }
    if needed < room { truncate(to: place &+ needed &+ size) }
    let bytes = unsafe mutableBytes
    _ = unsafe Self.write(UInt64(size), into: UnsafeMutableRawBufferPointer(rebasing: bytes[place...]))
  }

  /// Takes back the nested message that was opened last, tag and all.
  mutating func dropMessage(_ mark: ProtoMark) { truncate(to: mark.tag) }
}
