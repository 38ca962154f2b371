internal import Glibc

/// A moment on the wall clock together with the local zone's offset at that moment.
public struct LogTime: Equatable, Sendable {
  /// Whole seconds since 1970-01-01T00:00:00Z.
  public let seconds: Int64
  /// The fraction of the second, 0…999999999.
  public let nanoseconds: Int64
  /// How far local time is ahead of UTC, in seconds.
  public let offset: Int

  /// - Parameters:
  ///   - seconds: since 1970-01-01T00:00:00Z.
  ///   - nanoseconds: 0…999999999.
  ///   - offset: seconds that local time is ahead of UTC.
  public init(seconds: Int64, nanoseconds: Int64, offset: Int = 0) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
    self.offset = offset
  }

  /// The present, in the zone that `TZ` or `/etc/localtime` names, which is where Go looks too.
  public static func now() -> LogTime {
    var clock = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &clock)
    var local = unsafe tm()
    unsafe localtime_r(&clock.tv_sec, &local)
    let offset = unsafe local.tm_gmtoff
    return LogTime(seconds: Int64(clock.tv_sec), nanoseconds: Int64(clock.tv_nsec), offset: offset)
  }

  /// Nanoseconds since 1970, wrapping in the year 2262 as Go's `UnixNano` does.
  var unixNanoseconds: Int64 { seconds &* 1_000_000_000 &+ nanoseconds }
}

extension LogText {
  /// Go's layout `2006-01-02T15:04:05.000000Z0700`: microseconds cut off, not rounded; `Z` for offset zero.
  mutating func append(time: LogTime) {
    var shifted = time_t(time.seconds &+ Int64(time.offset))
    var date = unsafe tm()
    unsafe gmtime_r(&shifted, &date)
    unsafe append(number: date.tm_year &+ 1900, width: 4)
    append(ascii: "-")
    unsafe append(number: date.tm_mon &+ 1, width: 2)
    append(ascii: "-")
    unsafe append(number: date.tm_mday, width: 2)
    append(ascii: "T")
    unsafe append(number: date.tm_hour, width: 2)
    append(ascii: ":")
    unsafe append(number: date.tm_min, width: 2)
    append(ascii: ":")
    unsafe append(number: date.tm_sec, width: 2)
    append(ascii: ".")
    append(number: time.nanoseconds / 1000, width: 6)
    append(offset: time.offset)
  }

  private mutating func append(offset: Int) {
    guard offset != 0 else { return append(ascii: "Z") }
    append(ascii: offset < 0 ? "-" : "+")
    let minutes = offset.magnitude / 60
    append(number: minutes / 60, width: 2)
    append(number: minutes % 60, width: 2)
  }

  private mutating func append(number: some BinaryInteger, width: Int) {
    let digits = String(number).utf8
    for _ in 0..<max(0, width - digits.count) { append(ascii: "0") }
    bytes.append(contentsOf: digits)
  }
}
