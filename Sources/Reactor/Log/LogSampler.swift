/// Thins out repeated lines as zap does with etcd's settings: of the lines with the same level and message the
/// first 100 of a second pass, then every 100th (zapcore/sampler.go, client/pkg/logutil/zap.go).
///
/// The table has a fixed size. Messages whose hashes fall on the same slot share a count, in zap too.
struct LogSampler: Sendable {
  static let first: UInt64 = 100
  static let thereafter: UInt64 = 100
  static let slotsPerLevel = 4096

  private struct Slot {
    var count: UInt64 = 0
    /// When the second that `count` belongs to is over, in nanoseconds since 1970.
    var end = Int64.min
  }

  /// One table per level; empty until the level is used, since most processes never use all of them.
  private var tables = [[Slot]](repeating: [], count: LogLevel.allCases.count)

  /// Whether the line may pass; counts it either way.
  mutating func admits(_ level: LogLevel, _ message: String, at time: LogTime) -> Bool {
    let table = Int(level.rawValue)
    if tables[table].isEmpty { tables[table] = [Slot](repeating: Slot(), count: Self.slotsPerLevel) }
    let slot = Int(Self.hash(message)) % Self.slotsPerLevel
    let now = time.unixNanoseconds
    if tables[table][slot].end > now {
      tables[table][slot].count += 1
    } else {
      tables[table][slot] = Slot(count: 1, end: now &+ 1_000_000_000)
    }
    let count = tables[table][slot].count
    return count <= Self.first || (count - Self.first) % Self.thereafter == 0
  }

  /// FNV-1a, 32 bits: cheap, and good enough to spread the messages of one program.
  private static func hash(_ message: String) -> UInt32 {
    message.utf8.reduce(2_166_136_261) { ($0 ^ UInt32($1)) &* 16_777_619 }
  }
}
