internal import Reactor

/// How `grpc-message` carries its text: printable ASCII as it is, `%` and everything else as `%XX`.
enum PercentCoding {
  private static let digits: StaticString = "0123456789ABCDEF"

  /// Appends `text` in its coded form.
  static func encode(_ text: UnsafeRawBufferPointer, into output: inout ByteBuffer) {
    for place in 0..<text.count {
      let byte = unsafe text[place]
      if byte >= 0x20, byte <= 0x7E, byte != UInt8(ascii: "%") {
        output.append(byte)
      } else {
        output.append(UInt8(ascii: "%"))
        unsafe output.append(digits.utf8Start[Int(byte >> 4)])
        unsafe output.append(digits.utf8Start[Int(byte & 15)])
      }
    }
  }

  /// The text behind a coded form; an escape that is none stands for itself.
  static func decode(_ coded: UnsafeRawBufferPointer) -> [UInt8] {
    var text: [UInt8] = []
    text.reserveCapacity(coded.count)
    var place = 0
    while place < coded.count {
      let byte = unsafe coded[place]
      if byte == UInt8(ascii: "%"), coded.count - place > 2,
        let high = unsafe Hexadecimal.digit(coded[place + 1]),
        let low = unsafe Hexadecimal.digit(coded[place + 2])
      {
        text.append(high << 4 | low)
        place += 3
      } else {
        text.append(byte)
        place += 1
      }
    }
    return text
  }
}

/// Digits of base 16.
enum Hexadecimal {
  /// The value of a digit in upper or lower case.
  static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
