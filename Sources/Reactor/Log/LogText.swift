/// Bytes of a line under construction, and how single values are spelled in it.
struct LogText {
  var bytes: [UInt8] = []

  mutating func append(ascii scalar: Unicode.Scalar) { bytes.append(UInt8(truncatingIfNeeded: scalar.value)) }

  mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

  /// A JSON string. Zap escapes quotes, backslashes and control characters below 0x20 and nothing else; DEL,
  /// `<`, `>`, `&`, U+2028 and U+2029 go out as they are (zapcore/json_encoder.go: safeAddString).
  mutating func append(quoted text: String) {
    append(ascii: "\"")
    for byte in text.utf8 { append(escaped: byte) }
    append(ascii: "\"")
  }

  /// A JSON string from bytes of unknown origin; each byte that is not part of valid UTF-8 becomes `\ufffd`.
  mutating func append(quoted raw: [UInt8]) {
    append(ascii: "\"")
    var index = 0
    while index < raw.count {
      let length = raw.lengthOfScalar(at: index)
      if length == 0 {
        append("\\ufffd")
        index += 1
      } else {
        for byte in raw[index..<index + length] { append(escaped: byte) }
        index += length
      }
    }
    append(ascii: "\"")
  }

  private mutating func append(escaped byte: UInt8) {
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"):
      append(ascii: "\\")
      bytes.append(byte)
    case UInt8(ascii: "\n"): append("\\n")
    case UInt8(ascii: "\r"): append("\\r")
    case UInt8(ascii: "\t"): append("\\t")
    case 0..<0x20:
      append(byte < 0x10 ? "\\u000" : "\\u001")
      append(String(byte & 15, radix: 16))
    default: bytes.append(byte)
    }
  }

  /// The shortest digits that read back as the same number, never with an exponent (Go's format `'f', -1`).
  mutating func append(number: Double) {
    guard number.isFinite else {
      return append(number.isNaN ? "\"NaN\"" : number < 0 ? "\"-Inf\"" : "\"+Inf\"")
    }
    if number.sign == .minus { append(ascii: "-") }
    let (digits, point) = Self.decimal(of: number.magnitude)
    guard !digits.isEmpty else { return append(ascii: "0") }
    if point <= 0 {
      append("0.")
      bytes.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: -point))
      bytes.append(contentsOf: digits)
    } else if point >= digits.count {
      bytes.append(contentsOf: digits)
      bytes.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: point - digits.count))
    } else {
      bytes.append(contentsOf: digits[..<point])
      append(ascii: ".")
      bytes.append(contentsOf: digits[point...])
    }
  }

  /// The significant digits of a finite number and how many of them stand before the decimal point. Swift
  /// prints the same shortest digits as Go, only with the point or an exponent in other places.
  private static func decimal(of number: Double) -> (digits: [UInt8], point: Int) {
    let halves = number.description.split(separator: "e")
    let mantissa = halves.first.map { Array($0.utf8) } ?? []
    let exponent = halves.count > 1 ? Int(halves[1]) ?? 0 : 0
    let dot = UInt8(ascii: ".")
    var point = (mantissa.firstIndex(of: dot) ?? mantissa.count) + exponent
    var digits = mantissa.filter { $0 != dot }
    let leading = digits.prefix { $0 == UInt8(ascii: "0") }.count
    digits.removeFirst(leading)
    point -= leading
    while digits.last == UInt8(ascii: "0") { digits.removeLast() }
    return (digits, point)
  }

  /// As Go's `time.Duration` prints itself: `0s`, `1.5µs`, `300ms`, `1m0s`, `2h45m0.5s`.
  mutating func append(duration nanoseconds: Int64) {
    if nanoseconds < 0 { append(ascii: "-") }
    let span = nanoseconds.magnitude
    switch span {
    case 0: append("0s")
    case ..<1000: append("\(span)ns")
    case ..<1_000_000: append(span, per: 1000, unit: "µs")
    case ..<1_000_000_000: append(span, per: 1_000_000, unit: "ms")
    default:
      let minutes = span / 60_000_000_000
      if minutes >= 60 { append("\(minutes / 60)h") }
      if minutes > 0 { append("\(minutes % 60)m") }
      append(span % 60_000_000_000, per: 1_000_000_000, unit: "s")
    }
  }

  /// `span / scale` with as many decimals as it takes and none that are zero at the end.
  private mutating func append(_ span: UInt64, per scale: UInt64, unit: String) {
    append("\(span / scale)")
    var (rest, place) = (span % scale, scale / 10)
    if rest > 0 { append(ascii: ".") }
    while rest > 0 {
      append("\(rest / place)")
      rest %= place
      place /= 10
    }
    append(unit)
  }
}

extension [UInt8] {
  /// How many bytes the UTF-8 sequence at `index` has, or 0 if there is none. Refuses overlong forms,
  /// surrogates and values above U+10FFFF (RFC 3629, section 4).
  fileprivate func lengthOfScalar(at index: Int) -> Int {
    let second: ClosedRange<UInt8>
    let length: Int
    switch self[index] {
    case 0x00...0x7F: return 1
    case 0xC2...0xDF: (length, second) = (2, 0x80...0xBF)
    case 0xE0: (length, second) = (3, 0xA0...0xBF)
    case 0xED: (length, second) = (3, 0x80...0x9F)
    case 0xE1...0xEF: (length, second) = (3, 0x80...0xBF)
    case 0xF0: (length, second) = (4, 0x90...0xBF)
    case 0xF1...0xF3: (length, second) = (4, 0x80...0xBF)
    case 0xF4: (length, second) = (4, 0x80...0x8F)
    default: return 0
    }
    guard count - index >= length, second.contains(self[index + 1]) else { return 0 }
    return self[(index + 2)..<(index + length)].allSatisfy { $0 & 0xC0 == 0x80 } ? length : 0
  }
}
