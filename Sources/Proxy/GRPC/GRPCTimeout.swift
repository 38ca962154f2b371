internal import Reactor

/// The value of `grpc-timeout`: one to eight digits and a unit.
enum GRPCTimeout {
  /// Bytes of the longest value.
  static let longest = 9

  /// Nanoseconds in each unit, the finest first.
  private static func nanoseconds(_ unit: UInt8) -> UInt64? {
    switch unit {
    case UInt8(ascii: "n"): 1
    case UInt8(ascii: "u"): 1000
    case UInt8(ascii: "m"): 1_000_000
    case UInt8(ascii: "S"): 1_000_000_000
    case UInt8(ascii: "M"): 60_000_000_000
    case UInt8(ascii: "H"): 3_600_000_000_000
    default: nil
    }
  }

  /// The time a caller is willing to wait; `nil` if the text is malformed. Beyond five centuries it
  /// saturates.
  static func parse(_ text: UnsafeRawBufferPointer) -> Instant.Span? {
    guard text.count >= 2, text.count <= longest, let unit = unsafe nanoseconds(text[text.count - 1]) else {
      return nil
    }
    var number: UInt64 = 0
    for place in 0..<text.count - 1 {
      let byte = unsafe text[place]
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      number = number * 10 + UInt64(byte - UInt8(ascii: "0"))
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return Instant.Span(nanoseconds: overflow ? .max : product)
  }

  /// Writes what is left of a deadline and returns the number of bytes, at most `longest`, for which there
  /// must be room. In the finest unit that fits and rounded down, so that the server never waits longer than
  /// the caller; since a coarser unit is only taken for a number of nine digits, nothing but an expired
  /// deadline becomes 0.
  static func format(_ span: Instant.Span, into room: UnsafeMutableRawBufferPointer) -> Int {
    let (number, unit) = scaled(span.nanoseconds)
    var rest = number
    var size = 1
    while rest >= 10 {
      rest /= 10
      size += 1
    }
    rest = number
    for place in (0..<size).reversed() {
      unsafe room[place] = UInt8(ascii: "0") + UInt8(rest % 10)
      rest /= 10
    }
    unsafe room[size] = unit
    return size + 1
  }

  private static func scaled(_ nanoseconds: UInt64) -> (UInt64, UInt8) {
    let most: UInt64 = 99_999_999
    if nanoseconds <= most { return (nanoseconds, UInt8(ascii: "n")) }
    if nanoseconds / 1000 <= most { return (nanoseconds / 1000, UInt8(ascii: "u")) }
    if nanoseconds / 1_000_000 <= most { return (nanoseconds / 1_000_000, UInt8(ascii: "m")) }
    // All of 64 bits are fewer than 2^35 seconds, which are fewer than 10^8 hours.
    let seconds = nanoseconds / 1_000_000_000
    if seconds <= most { return (seconds, UInt8(ascii: "S")) }
    if seconds / 60 <= most { return (seconds / 60, UInt8(ascii: "M")) }
    return (seconds / 3600, UInt8(ascii: "H"))
  }
}
