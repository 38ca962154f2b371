/// How much a log line matters, in zap's order and with zap's lower-case names.
public enum LogLevel: UInt8, Comparable, CaseIterable, Sendable {
  /// Only of interest to somebody who looks for a fault; off unless asked for.
  case debug
  /// Normal operation.
  case info
  /// Something an operator may have to look at; service continues.
  case warn
  /// An operation failed for good.
  case error
  /// The process is about to end because of this.
  case fatal

  /// The name in the `level` key, as `zapcore.LowercaseLevelEncoder` writes it.
  public var name: String {
    switch self {
    case .debug: "debug"
    case .info: "info"
    case .warn: "warn"
    case .error: "error"
    case .fatal: "fatal"
    }
  }

  /// Less severe first.
  public static func < (a: LogLevel, b: LogLevel) -> Bool { a.rawValue < b.rawValue }
}

/// One key and value after the message. Fields appear in a line in the order of the call; equal keys are not
/// merged (zapcore/json_encoder.go does not either).
public enum LogField: Sendable {
  /// Text.
  case string(String, String)
  /// Text that came from outside and may not be UTF-8: every invalid byte becomes `\ufffd`.
  case bytes(String, [UInt8])
  /// A list of texts.
  case strings(String, [String])
  /// A signed number.
  case int(String, Int64)
  /// An unsigned number.
  case uint(String, UInt64)
  /// A number with fraction, written without exponent; `"NaN"`, `"+Inf"` and `"-Inf"` are strings.
  case double(String, Double)
  /// `true` or `false`.
  case bool(String, Bool)
  /// A length of time in nanoseconds, written as Go's `time.Duration` prints it: `1m0s`.
  case duration(String, nanoseconds: Int64)
  /// The description of an error under the key `error`.
  case error(any Error)
}

/// How lines look.
public enum LogFormat: Sendable {
  /// One JSON object per line, byte for byte as etcd writes it (client/pkg/logutil/zap.go).
  case json
  /// Columns for people, separated by tabs, as zap's console encoder writes them.
  case console
}
