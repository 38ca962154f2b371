public import Reactor

/// A length of time as Go knows it: signed nanoseconds, up to about 292 years, read and written in Go's syntax
/// (`time.ParseDuration`, `time.Duration.String`), which is what etcd's duration flags take and print.
public struct GoDuration: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The length; may be negative.
  public let nanoseconds: Int64

  /// A length of `nanoseconds`.
  public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  /// No time at all.
  public static let zero = GoDuration(nanoseconds: 0)

  /// Whole milliseconds; lengths beyond the range become the longest there is.
  public static func milliseconds(_ count: Int64) -> GoDuration { saturated(count, 1_000_000) }

  /// Whole seconds; lengths beyond the range become the longest there is.
  public static func seconds(_ count: Int64) -> GoDuration { saturated(count, 1_000_000_000) }

  /// Whole minutes; lengths beyond the range become the longest there is.
  public static func minutes(_ count: Int64) -> GoDuration { saturated(count, 60_000_000_000) }

  private static func saturated(_ count: Int64, _ unit: Int64) -> GoDuration {
    let (product, overflow) = count.multipliedReportingOverflow(by: unit)
    return GoDuration(nanoseconds: overflow ? (count < 0 ? .min : .max) : product)
  }

  /// Shorter before longer.
  public static func < (a: GoDuration, b: GoDuration) -> Bool { a.nanoseconds < b.nanoseconds }

  /// The same length for the clock of the event loop; a negative one becomes zero.
  public var span: Instant.Span { Instant.Span(nanoseconds: UInt64(clamping: nanoseconds)) }
}

extension GoDuration {
  /// Reads a signed sequence of decimal numbers, each with optional fraction and a unit, such as `300ms`, `-1.5h` or
  /// `2h45m`; units are ns, us, µs, ms, s, m, h; a bare `0` needs none. Fractions finer than a nanosecond are cut.
  /// Throws Go's text for anything else and for lengths beyond 63 bits of nanoseconds.
  public init(parsing text: String) throws(OptionError) {
    var reader = Reader(original: text, rest: Array(text.utf8)[...])
    let negative = reader.takeSign()
    if reader.rest.elementsEqual([Ascii.zero]) {
      self.init(nanoseconds: 0)
      return
    }
    guard !reader.rest.isEmpty else { throw reader.invalid }
    var total: UInt64 = 0
    while !reader.rest.isEmpty {
      let (sum, overflow) = total.addingReportingOverflow(try reader.takeTerm())
      guard !overflow, sum <= Reader.limit else { throw reader.invalid }
      total = sum
    }
    if negative {
      self.init(nanoseconds: Int64(truncatingIfNeeded: 0 &- total))
    } else {
      guard let length = Int64(exactly: total) else { throw reader.invalid }
      self.init(nanoseconds: length)
    }
  }

  /// The scanner over one duration text.
  private struct Reader {
    /// One more than the largest positive length: the magnitude of the most negative one.
    static let limit: UInt64 = 1 << 63

    let original: String
    var rest: ArraySlice<UInt8>

    var invalid: OptionError { OptionError("time: invalid duration \(Reader.quoted(original.utf8))") }

    mutating func takeSign() -> Bool {
      guard let first = rest.first, first == Ascii.minus || first == Ascii.plus else { return false }
      rest.removeFirst()
      return first == Ascii.minus
    }

    /// One number with its unit, in nanoseconds.
    mutating func takeTerm() throws(OptionError) -> UInt64 {
      let whole = takeDigits()
      var fraction: ArraySlice<UInt8> = []
      if rest.first == Ascii.dot {
        rest.removeFirst()
        fraction = takeDigits()
      }
      guard !whole.isEmpty || !fraction.isEmpty else { throw invalid }
      guard let count = Reader.number(whole) else { throw invalid }
      let unit = try takeUnit()
      let (product, overflow) = count.multipliedReportingOverflow(by: unit)
      guard !overflow, product <= Reader.limit else { throw invalid }
      let length = product + Reader.part(fraction, of: unit)
      guard length <= Reader.limit else { throw invalid }
      return length
    }

    private mutating func takeDigits() -> ArraySlice<UInt8> {
      let digits = rest.prefix(while: Ascii.isDecimal)
      rest = rest.dropFirst(digits.count)
      return digits
    }

    private mutating func takeUnit() throws(OptionError) -> UInt64 {
      let name = rest.prefix { $0 != Ascii.dot && !Ascii.isDecimal($0) }
      rest = rest.dropFirst(name.count)
      let whole = Reader.quoted(original.utf8)
      switch String(decoding: name, as: UTF8.self) {
      case "": throw OptionError("time: missing unit in duration \(whole)")
      case "ns": return 1
      case "us", "\u{b5}s", "\u{3bc}s": return 1000
      case "ms": return 1_000_000
      case "s": return 1_000_000_000
      case "m": return 60_000_000_000
      case "h": return 3_600_000_000_000
      default: throw OptionError("time: unknown unit \(Reader.quoted(name)) in duration \(whole)")
      }
    }

    /// The digits as a number, nil above `limit`.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
      var value: UInt64 = 0
      for byte in digits {
        let (product, tooBig) = value.multipliedReportingOverflow(by: 10)
        let (sum, carry) = product.addingReportingOverflow(UInt64(byte &- Ascii.zero))
        guard !tooBig, !carry, sum <= limit else { return nil }
        value = sum
      }
      return value
    }

    /// The digits after the point as nanoseconds of a unit, in floating point as Go does it, so that both cut alike.
    private static func part(_ digits: ArraySlice<UInt8>, of unit: UInt64) -> UInt64 {
      var value: UInt64 = 0
      var scale = 1.0
      for byte in digits.prefix(19) {
        guard value <= UInt64(Int64.max) / 10 else { break }
        let next = value * 10 + UInt64(byte &- Ascii.zero)
        guard next <= limit else { break }
        value = next
        scale *= 10
      }
      return UInt64(Double(value) * (Double(unit) / scale))
    }

    /// Go's time package quotes by bytes: everything outside printable ASCII becomes `\xNN`.
    private static func quoted(_ bytes: some Sequence<UInt8>) -> String {
      var result = "\""
      for byte in bytes {
        switch byte {
        case Ascii.quote, Ascii.backslash: result += "\\" + String(Unicode.Scalar(byte))
        case 0x20..<0x80: result.unicodeScalars.append(Unicode.Scalar(byte))
        default: result += "\\x" + GoText.hexadecimal(UInt32(byte), digits: 2)
        }
      }
      return result + "\""
    }
  }
}

extension GoDuration {
  /// Go's notation: `1h2m3.5s` from one second up, else the largest fitting of `ms`, `µs`, `ns`; zero is `0s`.
  public var description: String {
    let length = nanoseconds.magnitude
    let sign = nanoseconds < 0 ? "-" : ""
    switch length {
    case 0: return "0s"
    case ..<1000: return "\(sign)\(length)ns"
    case ..<1_000_000: return sign + GoDuration.decimal(length, unit: 1000) + "µs"
    case ..<1_000_000_000: return sign + GoDuration.decimal(length, unit: 1_000_000) + "ms"
    default: return sign + GoDuration.clock(length)
    }
  }

  private static func clock(_ length: UInt64) -> String {
    let minute: UInt64 = 60_000_000_000
    let minutes = length / minute
    let hours = minutes / 60
    let seconds = decimal(length % minute, unit: 1_000_000_000) + "s"
    if hours > 0 { return "\(hours)h\(minutes % 60)m\(seconds)" }
    return minutes > 0 ? "\(minutes)m\(seconds)" : seconds
  }

  /// `length / unit` in decimal, exact, without zeros at the end; `unit` is a power of ten.
  private static func decimal(_ length: UInt64, unit: UInt64) -> String {
    var text = "\(length / unit)"
    var rest = length % unit
    var place = unit / 10
    if rest > 0 { text += "." }
    while rest > 0 {
      text += "\(rest / place)"
      rest %= place
      place /= 10
    }
    return text
  }
}
