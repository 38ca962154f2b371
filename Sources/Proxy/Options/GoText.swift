/// Go's ways of writing and reading single values (`strconv`), because scripts match the texts etcd prints.
enum GoText {
  /// The text in double quotes as Go's `%q` writes it: what a terminal would not show becomes an escape.
  static func quoted(_ text: String) -> String { "\"\(escaped(text, quote: "\""))\"" }

  /// One character as Go's `%q` writes it, in single quotes.
  static func quoted(_ scalar: Unicode.Scalar) -> String { "'\(escaped(String(scalar), quote: "'"))'" }

  private static func escaped(_ text: String, quote: Unicode.Scalar) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case quote, "\\": result += "\\\(scalar)"
      case "\u{07}": result += "\\a"
      case "\u{08}": result += "\\b"
      case "\u{0c}": result += "\\f"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case "\u{0b}": result += "\\v"
      case _ where isPrintable(scalar): result.unicodeScalars.append(scalar)
      case _ where scalar.value < 0x80: result += "\\x" + hexadecimal(scalar.value, digits: 2)
      case _ where scalar.value < 0x10000: result += "\\u" + hexadecimal(scalar.value, digits: 4)
      default: result += "\\U" + hexadecimal(scalar.value, digits: 8)
      }
    }
    return result
  }

  /// `value` in lower case hexadecimal, filled up with zeros on the left.
  static func hexadecimal(_ value: UInt32, digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
  }

  /// Letters, marks, numbers, punctuation and symbols; of the spaces only the ASCII one.
  private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    if scalar == " " { return true }
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned: return false
    case .lineSeparator, .paragraphSeparator, .spaceSeparator: return false
    default: return true
    }
  }

  /// `strconv.ParseBool`.
  static func boolean(_ text: String) throws(OptionError) -> Bool {
    switch text {
    case "1", "t", "T", "TRUE", "true", "True": return true
    case "0", "f", "F", "FALSE", "false", "False": return false
    default: throw numberError("ParseBool", text, .syntax)
    }
  }

  /// `strconv.ParseInt(text, 0, 64)`: decimal, `0x`, `0o`, `0b`, a leading zero for octal, `_` between digits.
  static func integer(_ text: String) throws(OptionError) -> Int {
    try signed(text, function: "ParseInt", prefixes: true)
  }

  /// `strconv.Atoi`: decimal only.
  static func decimal(_ text: String) throws(OptionError) -> Int {
    try signed(text, function: "Atoi", prefixes: false)
  }

  /// `strconv.ParseUint(text, 0, n)` with the bits of the wanted type: as `integer`, without a sign.
  static func unsigned<Value: FixedWidthInteger & UnsignedInteger>(
    _ text: String
  ) throws(OptionError) -> Value {
    switch magnitude(Array(text.utf8)[...], prefixes: true) {
    case .success(let magnitude):
      guard let value = Value(exactly: magnitude) else { throw numberError("ParseUint", text, .range) }
      return value
    case .failure(let fault): throw numberError("ParseUint", text, fault)
    }
  }

  private static func signed(_ text: String, function: String, prefixes: Bool) throws(OptionError) -> Int {
    var digits = Array(text.utf8)[...]
    let sign = digits.first
    if sign == Ascii.minus || sign == Ascii.plus { digits.removeFirst() }
    switch magnitude(digits, prefixes: prefixes) {
    case .failure(let fault): throw numberError(function, text, fault)
    case .success(let value):
      if sign == Ascii.minus, value == UInt64(Int64.max) + 1 { return .min }
      guard let positive = Int(exactly: value) else { throw numberError(function, text, .range) }
      return sign == Ascii.minus ? -positive : positive
    }
  }

  private enum NumberFault: String, Error {
    case syntax = "invalid syntax"
    case range = "value out of range"
  }

  private static func numberError(_ function: String, _ text: String, _ fault: NumberFault) -> OptionError {
    OptionError("strconv.\(function): parsing \(quoted(text)): \(fault.rawValue)")
  }

  private static func magnitude(_ text: ArraySlice<UInt8>, prefixes: Bool) -> Result<UInt64, NumberFault> {
    guard !text.isEmpty else { return .failure(.syntax) }
    let (base, prefix) = prefixes ? baseAndPrefix(text) : (10, 0)
    let body = Array(text.dropFirst(prefix))
    var value: UInt64 = 0
    for (index, byte) in body.enumerated() {
      if byte == Ascii.underscore, prefixes {
        guard separatesDigits(index, in: body, afterPrefix: prefix > 0) else { return .failure(.syntax) }
        continue
      }
      guard let digit = Ascii.digit(byte), digit < base else { return .failure(.syntax) }
      let (product, tooBig) = value.multipliedReportingOverflow(by: base)
      let (sum, carry) = product.addingReportingOverflow(digit)
      if tooBig || carry { return .failure(.range) }
      value = sum
    }
    return .success(value)
  }

  private static func baseAndPrefix(_ text: ArraySlice<UInt8>) -> (base: UInt64, length: Int) {
    guard text.first == Ascii.zero else { return (10, 0) }
    guard text.count >= 3, let letter = text.dropFirst().first else { return (8, 1) }
    switch letter | 0x20 {
    case UInt8(ascii: "x"): return (16, 2)
    case UInt8(ascii: "o"): return (8, 2)
    case UInt8(ascii: "b"): return (2, 2)
    default: return (8, 1)
    }
  }

  private static func separatesDigits(_ index: Int, in body: [UInt8], afterPrefix: Bool) -> Bool {
    let before = index == 0 ? afterPrefix : body[index - 1] != Ascii.underscore
    return before && index + 1 < body.count && body[index + 1] != Ascii.underscore
  }
}

/// The few bytes the command line's syntaxes are made of.
enum Ascii {
  static let zero = UInt8(ascii: "0")
  static let dot = UInt8(ascii: ".")
  static let plus = UInt8(ascii: "+")
  static let minus = UInt8(ascii: "-")
  static let equals = UInt8(ascii: "=")
  static let comma = UInt8(ascii: ",")
  static let quote = UInt8(ascii: "\"")
  static let backslash = UInt8(ascii: "\\")
  static let underscore = UInt8(ascii: "_")
  static let newline = UInt8(ascii: "\n")
  static let carriageReturn = UInt8(ascii: "\r")

  static func isDecimal(_ byte: UInt8) -> Bool { byte &- zero < 10 }

  /// The value of a digit up to base 36.
  static func digit(_ byte: UInt8) -> UInt64? {
    if isDecimal(byte) { return UInt64(byte &- zero) }
    let letter = (byte | 0x20) &- UInt8(ascii: "a")
    return letter < 26 ? UInt64(letter) + 10 : nil
  }
}
