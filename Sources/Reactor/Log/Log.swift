/// The process's log: structured lines in the encoding of etcd's zap set-up (client/pkg/logutil/zap.go).
///
/// One instance serves all threads. A call copies a line into memory and returns; it never waits for the
/// descriptor. If that stays stuck until the buffer is full, lines are dropped and a warning `log lines dropped`
/// with their `count` follows when there is room again. Repeated lines are thinned out as zap does: of one level
/// and message 100 per second, then every 100th. Lines of level error carry no `stacktrace`.
public final class Log: Sendable {
  /// Lines below this level are not even built.
  public let level: LogLevel
  private let layout: LogLayout
  private let clock: @Sendable () -> LogTime
  private let sampler = LogMonitor(LogSampler())
  private let writer: LogWriter

  /// Starts the thread that writes.
  ///
  /// - Parameters:
  ///   - descriptor: where lines go, standard error by default. Stays open, and must until `close` came back.
  ///   - level: the lowest level that is logged.
  ///   - format: JSON unless people are to read it.
  ///   - bufferBytes: most bytes that wait to be written.
  ///   - clock: the time of a line.
  /// - Throws: the error of `pthread_create`.
  public init(
    descriptor: Int32 = 2, level: LogLevel = .info, format: LogFormat = .json, bufferBytes: Int = 1 << 20,
    clock: @escaping @Sendable () -> LogTime = LogTime.now
  ) throws(SystemError) {
    let layout = LogLayout(format: format)
    self.level = level
    self.layout = layout
    self.clock = clock
    writer = try LogWriter(descriptor: descriptor, capacity: bufferBytes) { count in
      layout.line(
        .warn, at: clock(), caller: LogCaller(file: #fileID, line: #line), message: "log lines dropped",
        fields: [.uint("count", count)])
    }
  }

  deinit { writer.stop() }

  /// Whether lines of this level are logged. Fields are evaluated before a call, unlike the message: ask first
  /// where they are costly.
  public func isEnabled(_ level: LogLevel) -> Bool { level >= self.level }

  /// Logs at level debug.
  public func debug(
    _ message: @autoclosure () -> String, _ fields: LogField..., file: StaticString = #fileID,
    line: UInt = #line
  ) {
    record(.debug, message, fields, LogCaller(file: file, line: line))
  }

  /// Logs at level info.
  public func info(
    _ message: @autoclosure () -> String, _ fields: LogField..., file: StaticString = #fileID,
    line: UInt = #line
  ) {
    record(.info, message, fields, LogCaller(file: file, line: line))
  }

  /// Logs at level warn.
  public func warn(
    _ message: @autoclosure () -> String, _ fields: LogField..., file: StaticString = #fileID,
    line: UInt = #line
  ) {
    record(.warn, message, fields, LogCaller(file: file, line: line))
  }

  /// Logs at level error.
  public func error(
    _ message: @autoclosure () -> String, _ fields: LogField..., file: StaticString = #fileID,
    line: UInt = #line
  ) {
    record(.error, message, fields, LogCaller(file: file, line: line))
  }

  /// Logs at level fatal and waits up to a second until it is written. Ending the process is up to the caller.
  public func fatal(
    _ message: @autoclosure () -> String, _ fields: LogField..., file: StaticString = #fileID,
    line: UInt = #line
  ) {
    record(.fatal, message, fields, LogCaller(file: file, line: line))
    flush()
  }

  /// Waits until everything logged before the call is written (or was refused by the descriptor for good).
  /// Blocks: for the way out of the process and for tests, not for a core.
  ///
  /// - Returns: false if `limit` was over first.
  @discardableResult public func flush(atMost limit: Instant.Span = .seconds(1)) -> Bool {
    writer.flush(atMost: limit)
  }

  /// Like `flush`, and ends the writing thread. Later lines vanish.
  ///
  /// - Returns: false if `limit` was over first; the thread then still waits for its descriptor.
  @discardableResult public func close(atMost limit: Instant.Span = .seconds(1)) -> Bool {
    writer.stop()
    return writer.join(atMost: limit)
  }

  private func record(_ level: LogLevel, _ message: () -> String, _ fields: [LogField], _ caller: LogCaller) {
    guard isEnabled(level) else { return }
    let (text, time) = (message(), clock())
    guard sampler.withLock({ $0.admits(level, text, at: time) }) else { return }
    writer.append(layout.line(level, at: time, caller: caller, message: text, fields: fields))
  }
}
