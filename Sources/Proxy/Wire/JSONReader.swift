/// Not JSON, or nested too deeply.
struct JSONMalformed: Error {}

/// Reads the little JSON there is in registrations (RFC 8259): what is asked for, stepping over the rest.
struct JSONReader {
  private let bytes: [UInt8]
  private var place = 0
  private var depth = 0

  init(_ text: [UInt8]) { bytes = text }

  /// Nothing but space is left.
  mutating func isAtEnd() -> Bool {
    skipSpace()
    return place == bytes.count
  }

  /// The first byte of the next value, which tells its type.
  mutating func peek() -> UInt8? {
    skipSpace()
    return place < bytes.count ? bytes[place] : nil
  }

  /// An object; `member` gets each name and has to read or skip its value.
  mutating func object(
    _ member: (String, inout JSONReader) throws(JSONMalformed) -> Void
  ) throws(JSONMalformed) {
    try sequence(from: UInt8(ascii: "{"), to: UInt8(ascii: "}")) { reader throws(JSONMalformed) in
      let name = try reader.string()
      try reader.expect(UInt8(ascii: ":"))
      try member(name, &reader)
    }
  }

  /// A text; halves of surrogate pairs that stand alone, and what is not UTF-8, are replaced.
  mutating func string() throws(JSONMalformed) -> String {
    try expect(UInt8(ascii: "\""))
    var text: [UInt8] = []
    while true {
      let byte = try take()
      switch byte {
      case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
      case UInt8(ascii: "\\"): try escape(into: &text)
      case 0..<0x20: throw JSONMalformed()
      default: text.append(byte)
      }
    }
  }

  /// A number, or one of the words, as it is written.
  mutating func word() throws(JSONMalformed) -> ArraySlice<UInt8> {
    skipSpace()
    let start = place
    while place < bytes.count, Self.isWord(bytes[place]) { place += 1 }
    guard place > start else { throw JSONMalformed() }
    return bytes[start..<place]
  }

  /// Any value.
  mutating func skip() throws(JSONMalformed) {
    switch peek() {
    case UInt8(ascii: "\""): _ = try string()
    case UInt8(ascii: "{"): try object { (_, reader) throws(JSONMalformed) in try reader.skip() }
    case UInt8(ascii: "["):
      try sequence(from: UInt8(ascii: "["), to: UInt8(ascii: "]")) { reader throws(JSONMalformed) in
        try reader.skip()
      }
    default: _ = try word()
    }
  }

  // MARK: Grammar

  private mutating func sequence(
    from open: UInt8, to close: UInt8, _ element: (inout JSONReader) throws(JSONMalformed) -> Void
  ) throws(JSONMalformed) {
    guard depth < Limits.nestedJSON else { throw JSONMalformed() }
    depth += 1
    defer { depth -= 1 }
    try expect(open)
    if peek() == close {
      place += 1
      return
    }
    while true {
      try element(&self)
      skipSpace()
      let mark = try take()
      if mark == close { return }
      guard mark == UInt8(ascii: ",") else { throw JSONMalformed() }
    }
  }

  private mutating func escape(into text: inout [UInt8]) throws(JSONMalformed) {
    let mark = try take()
    switch mark {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(mark)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"): text.append(contentsOf: String(try escapedScalar()).utf8)
    default: throw JSONMalformed()
    }
  }

  private mutating func escapedScalar() throws(JSONMalformed) -> Unicode.Scalar {
    let first = try unit()
    let behind = place
    if first & 0xFC00 == 0xD800, place + 1 < bytes.count, bytes[place] == UInt8(ascii: "\\"),
      bytes[place + 1] == UInt8(ascii: "u")
    {
      place += 2
      let second = try unit()
      if second & 0xFC00 == 0xDC00 {
        return Unicode.Scalar(0x1_0000 + (first & 0x3FF) << 10 + second & 0x3FF) ?? "\u{FFFD}"
      }
      place = behind
    }
    return Unicode.Scalar(first) ?? "\u{FFFD}"
  }

  private mutating func unit() throws(JSONMalformed) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let digit = Hexadecimal.digit(try take()) else { throw JSONMalformed() }
      value = value << 4 | UInt32(digit)
    }
    return value
  }

  private mutating func skipSpace() {
    while place < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[place]) { place += 1 }
  }

  private mutating func take() throws(JSONMalformed) -> UInt8 {
    guard place < bytes.count else { throw JSONMalformed() }
    defer { place += 1 }
    return bytes[place]
  }

  private mutating func expect(_ byte: UInt8) throws(JSONMalformed) {
    guard peek() == byte else { throw JSONMalformed() }
    place += 1
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"),
      UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "E"):
      true
    default: false
    }
  }
}
