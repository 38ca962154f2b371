/// Writes metrics in the Prometheus text format 0.0.4, one family after the other.
///
///     var text = MetricsText()
///     text.family("ringway_connections_total", .counter, help: "Connections accepted.")
///     text.sample(labels: [("listener", "client")], 12)
///
/// Names of metrics and labels are the program's own and must be in the format's alphabet (checked in debug builds);
/// help texts and label values may be anything.
public struct MetricsText: Sendable {
  /// For the `Content-Type` line of a response.
  public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  /// What a family's samples mean.
  public enum Kind: String, Sendable {
    /// Only grows, except for restarts.
    case counter
    /// Goes up and down.
    case gauge
    /// Buckets, sum and count.
    case histogram
  }

  /// Label names with values, in the order in which they are written.
  public typealias Labels = [(name: String, value: String)]

  /// What was written so far, each line ended.
  public private(set) var bytes: [UInt8] = []
  private var name = ""

  /// Starts empty, with room for `capacity` bytes.
  public init(capacity: Int = 16 * 1024) { bytes.reserveCapacity(capacity) }

  /// Begins a family: its help and type. Each name may be begun once.
  public mutating func family(_ name: String, _ kind: Kind, help: String) {
    assert(Self.isName(name, colons: true))
    self.name = name
    bytes += "# HELP \(name) ".utf8
    append(escaping: help, quotes: false)
    bytes += "\n# TYPE \(name) \(kind.rawValue)\n".utf8
  }

  /// A sample of the current family with a whole number.
  public mutating func sample(labels: Labels = [], _ value: UInt64) {
    append(suffix: "", labels)
    end(value: "\(value)")
  }

  /// A sample of the current family with any number.
  public mutating func sample(labels: Labels = [], number: Double) {
    append(suffix: "", labels)
    end(value: Self.text(number))
  }

  /// The samples of a histogram in the current family: cumulative buckets, sum and count.
  public mutating func sample(labels: Labels = [], _ histogram: Histogram) {
    let totals = histogram.cumulative
    for (bound, total) in zip(histogram.bounds.map(Self.text) + ["+Inf"], totals) {
      append(suffix: "_bucket", labels + [("le", bound)])
      end(value: "\(total)")
    }
    append(suffix: "_sum", labels)
    end(value: Self.text(histogram.sum))
    append(suffix: "_count", labels)
    end(value: "\(totals.last ?? 0)")
  }

  // MARK: Parts

  private mutating func append(suffix: String, _ labels: Labels) {
    bytes += name.utf8
    bytes += suffix.utf8
    guard !labels.isEmpty else { return }
    for (position, label) in labels.enumerated() {
      assert(Self.isName(label.name, colons: false))
      bytes.append(UInt8(ascii: position == 0 ? "{" : ","))
      bytes += label.name.utf8
      bytes += "=\"".utf8
      append(escaping: label.value, quotes: true)
      bytes.append(UInt8(ascii: "\""))
    }
    bytes.append(UInt8(ascii: "}"))
  }

  private mutating func end(value: String) {
    bytes.append(UInt8(ascii: " "))
    bytes += value.utf8
    bytes.append(UInt8(ascii: "\n"))
  }

  /// Backslash and line feed are escaped everywhere, the double quote in label values only.
  private mutating func append(escaping text: String, quotes: Bool) {
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\\"): bytes += "\\\\".utf8
      case UInt8(ascii: "\n"): bytes += "\\n".utf8
      case UInt8(ascii: "\"") where quotes: bytes += "\\\"".utf8
      default: bytes.append(byte)
      }
    }
  }

  /// Whole numbers without fraction, as Go writes the bounds of buckets: `le="1"`.
  private static func text(_ number: Double) -> String {
    if number.isNaN { return "NaN" }
    if number.isInfinite { return number < 0 ? "-Inf" : "+Inf" }
    guard number == number.rounded(), abs(number) < 1e15 else { return "\(number)" }
    return "\(Int64(number))"
  }

  private static func isName(_ text: String, colons: Bool) -> Bool {
    for (position, byte) in text.utf8.enumerated() {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"):
        continue
      case UInt8(ascii: "0")...UInt8(ascii: "9") where position > 0: continue
      case UInt8(ascii: ":") where colons: continue
      default: return false
      }
    }
    return !text.isEmpty
  }
}
