/// A message that is not protobuf, or holds what every decoder of etcd's would not read alike.
struct ProtoMalformed: Error, Equatable {}

/// How a field is written.
enum ProtoWire: UInt8 {
  case varint = 0
  case fixed64 = 1
  /// Bytes, text, a message, or packed numbers.
  case bytes = 2
  /// A group as a whole; etcd has none, so it is only stepped over.
  case group = 3
  case fixed32 = 5
}

/// One field of a message. Points into the message.
@safe struct ProtoField {
  let number: Int
  let wire: ProtoWire
  /// From the first byte of its tag to its end, in the message.
  let range: Range<Int>
  /// The value of a number; 0 for others.
  let scalar: UInt64
  /// The content of bytes; empty for others.
  let payload: UnsafeRawBufferPointer

  /// The value of an `int64`, `int32` or enum.
  var signed: Int64 { Int64(bitPattern: scalar) }
  /// The value of a `bool`.
  var isTrue: Bool { scalar != 0 }
}

/// Steps through the fields of a message in the order of the wire, whether it knows them or not.
///
/// It is stricter than decoders have to be where they differ among each other (field numbers and varints that
/// overflow, unbalanced groups): nobody may be shown a message here that etcd then reads in another way.
@safe struct ProtoReader {
  private let bytes: UnsafeRawBufferPointer
  /// Where the next field starts.
  private(set) var position: Int

  /// Reads `message` from the field that starts at `position`.
  init(_ message: UnsafeRawBufferPointer, from position: Int = 0) {
    unsafe bytes = message
    self.position = position
  }

  private var left: Int { unsafe bytes.count &- position }

  /// The next field, `nil` at the end.
  mutating func next() throws(ProtoMalformed) -> ProtoField? {
    guard left > 0 else { return nil }
    let start = position
    let (number, type) = try tag()
    switch ProtoWire(rawValue: type) {
    case .varint:
      let value = try varint()
      return unsafe field(number, .varint, start, value, UnsafeRawBufferPointer(start: nil, count: 0))
    case .bytes:
      let length = try varint()
      guard length <= UInt64(left) else { throw ProtoMalformed() }
      let payload = unsafe UnsafeRawBufferPointer(rebasing: bytes[position..<position &+ Int(length)])
      position &+= Int(length)
      return unsafe field(number, .bytes, start, 0, payload)
    case .fixed64:
      let value = try fixed(8)
      return unsafe field(number, .fixed64, start, value, UnsafeRawBufferPointer(start: nil, count: 0))
    case .fixed32:
      let value = try fixed(4)
      return unsafe field(number, .fixed32, start, value, UnsafeRawBufferPointer(start: nil, count: 0))
    case .group:
      try skipGroup(number, depth: 0)
      return unsafe field(number, .group, start, 0, UnsafeRawBufferPointer(start: nil, count: 0))
    case nil:
      throw ProtoMalformed()
    }
  }

  /// Reads the content of a packed field instead: the next number, `nil` at the end.
  mutating func packedNumber() throws(ProtoMalformed) -> UInt64? { left > 0 ? try varint() : nil }

  private func field(
    _ number: Int, _ wire: ProtoWire, _ start: Int, _ scalar: UInt64, _ payload: UnsafeRawBufferPointer
  ) -> ProtoField {
    unsafe ProtoField(number: number, wire: wire, range: start..<position, scalar: scalar, payload: payload)
  }

  private mutating func tag() throws(ProtoMalformed) -> (number: Int, type: UInt8) {
    let tag = try varint()
    guard tag >= 8, tag >> 3 <= 0x1FFF_FFFF else { throw ProtoMalformed() }
    return (Int(tag >> 3), UInt8(tag & 7))
  }

  private mutating func varint() throws(ProtoMalformed) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while left > 0 {
      let byte = unsafe bytes[position]
      position &+= 1
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 {
        // Of the tenth byte only one bit fits.
        guard shift < 63 || byte < 2 else { throw ProtoMalformed() }
        return value
      }
      shift &+= 7
      guard shift < 64 else { throw ProtoMalformed() }
    }
    throw ProtoMalformed()
  }

  private mutating func fixed(_ size: Int) throws(ProtoMalformed) -> UInt64 {
    guard left >= size else { throw ProtoMalformed() }
    defer { position &+= size }
    var value: UInt64 = 0
    for place in (0..<size).reversed() { value = unsafe value << 8 | UInt64(bytes[position &+ place]) }
    return value
  }

  /// Steps over the fields up to the end of group `number`.
  private mutating func skipGroup(_ number: Int, depth: Int) throws(ProtoMalformed) {
    guard depth < Limits.protobufGroups else { throw ProtoMalformed() }
    while left > 0 {
      let inner = try tag()
      switch inner.type {
      case 0: _ = try varint()
      case 1: _ = try fixed(8)
      case 2:
        let length = try varint()
        guard length <= UInt64(left) else { throw ProtoMalformed() }
        position &+= Int(length)
      case 3: try skipGroup(inner.number, depth: depth + 1)
      case 4:
        guard inner.number == number else { throw ProtoMalformed() }
        return
      case 5: _ = try fixed(4)
      default: throw ProtoMalformed()
      }
    }
    throw ProtoMalformed()
  }
}

/// The contents of a repeated field of bytes or messages, one after the other, without copying.
@safe struct ProtoSequence {
  private var reader: ProtoReader
  private let number: Int

  /// The contents of field `number` in `message`.
  init(of number: Int, in message: UnsafeRawBufferPointer) {
    unsafe reader = ProtoReader(message)
    self.number = number
  }

  /// Where in the message the search goes on.
  var position: Int { reader.position }

  /// The next one, `nil` at the end.
  mutating func next() throws(ProtoMalformed) -> UnsafeRawBufferPointer? {
    while let field = try reader.next() {
      if field.number == number, field.wire == .bytes { return unsafe field.payload }
    }
    return nil
  }
}

/// The numbers of a packed repeated field.
@safe struct ProtoNumbers {
  private var reader: ProtoReader

  init(_ payload: UnsafeRawBufferPointer) { unsafe reader = ProtoReader(payload) }

  /// The next one, `nil` at the end.
  mutating func next() throws(ProtoMalformed) -> UInt64? { try reader.packedNumber() }
}
