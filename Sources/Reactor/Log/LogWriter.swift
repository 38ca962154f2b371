internal import Glibc

/// Lines on their way to a descriptor. Callers only copy into memory; one thread does every `write`, so that a
/// terminal on hold or a full pipe stops that thread and nothing else.
final class LogWriter: Sendable {
  private let descriptor: Int32
  private let capacity: Int
  private let queue = LogMonitor(LogQueue())
  /// Writes the line that tells of a gap of so many lines.
  private let gapLine: @Sendable (UInt64) -> [UInt8]

  /// - Parameters:
  ///   - descriptor: where lines go; not closed here.
  ///   - capacity: most bytes that wait, those handed to `write` included.
  ///   - gapLine: makes the line that says how many lines are missing.
  init(
    descriptor: Int32, capacity: Int, gapLine: @escaping @Sendable (UInt64) -> [UInt8]
  ) throws(SystemError) {
    self.descriptor = descriptor
    self.capacity = capacity
    self.gapLine = gapLine
    try startThread()
  }

  /// Takes a whole line, or counts it as dropped if there is no room. Never waits for the descriptor.
  func append(_ line: [UInt8]) { queue.withLock { $0.append(line, capacity: capacity) } }

  /// Waits until every line appended before the call was written or given up.
  func flush(atMost limit: Instant.Span) -> Bool {
    let last = queue.withLock { $0.lastSeen }
    return queue.wait(atMost: limit) { $0.lastDone >= last }
  }

  /// Refuses further lines; the thread ends once it has written what it has.
  func stop() { queue.withLock { $0.isStopped = true } }

  /// Waits for the thread to end after `stop`.
  func join(atMost limit: Instant.Span) -> Bool { queue.wait(atMost: limit) { $0.isThreadGone } }

  private func startThread() throws(SystemError) {
    // The thread inherits a full mask: signals are the business of others, and a reader that went away shows up
    // as EPIPE instead of SIGPIPE.
    var (all, before) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
    var thread = pthread_t()
    let context = unsafe Unmanaged.passRetained(self)
    let code = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<LogWriter>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, context.toOpaque())
    guard code == 0 else {
      unsafe context.release()
      throw SystemError(code: code)
    }
    pthread_detach(thread)
  }

  private func run() {
    while let batch = queue.wait(until: { $0.hasWork || $0.isStopped }, then: { $0.take() }) {
      var bytes = batch.bytes
      if batch.missing > 0 { bytes.append(contentsOf: gapLine(batch.missing)) }
      let unwritten = bytes[write(bytes)...]
      var lost = UInt64(unwritten.count { $0 == UInt8(ascii: "\n") })
      // The line about the gap comes last, so any loss includes it: its own loss is not one, its count is.
      if lost > 0 && batch.missing > 0 { lost += batch.missing - 1 }
      queue.withLock { $0.finish(batch, lost: lost) }
    }
    queue.withLock { $0.isThreadGone = true }
  }

  /// How many bytes went out before all were out or the descriptor failed.
  private func write(_ bytes: [UInt8]) -> Int {
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes[done...].withUnsafeBytes { rest in
        unsafe Glibc.write(descriptor, rest.baseAddress, rest.count)
      }
      if count > 0 {
        done += count
      } else if count < 0 && errno == EAGAIN {
        // Somebody else may have made the shared descriptor non-blocking.
        var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        unsafe poll(&ready, 1, -1)
      } else if count == 0 || errno != EINTR {
        return done
      }
    }
    return done
  }
}

/// What waits for the writer thread.
private struct LogQueue {
  private var pending: [UInt8] = []
  private var bytesInWrite = 0
  /// Lines refused for want of room; the writer reports them as soon as it gets to run.
  private var dropped: UInt64 = 0
  /// Lines the descriptor did not take; reported behind the next line, since reporting at once would fail too.
  private var failed: UInt64 = 0
  /// Number of the last line offered, and of the last one that was written, dropped or given up.
  private(set) var lastSeen: UInt64 = 0
  private(set) var lastDone: UInt64 = 0
  var isStopped = false
  var isThreadGone = false

  struct Batch {
    let bytes: [UInt8]
    let missing: UInt64
    fileprivate let last: UInt64
  }

  var hasWork: Bool { !pending.isEmpty || dropped > 0 }

  mutating func append(_ line: [UInt8], capacity: Int) {
    guard !isStopped else { return }
    lastSeen += 1
    // Once a line was dropped all that follow are, up to the report: so it stands exactly where the gap is.
    guard dropped == 0, pending.count + bytesInWrite + line.count <= capacity else { return dropped += 1 }
    pending.append(contentsOf: line)
  }

  /// Everything there is to write, or nil if there is nothing (and, as the caller woke up, never will be).
  mutating func take() -> Batch? {
    guard hasWork else { return nil }
    let batch = Batch(bytes: pending, missing: dropped + failed, last: lastSeen)
    bytesInWrite = pending.count
    pending = []
    (dropped, failed) = (0, 0)
    return batch
  }

  mutating func finish(_ batch: Batch, lost: UInt64) {
    bytesInWrite = 0
    lastDone = batch.last
    failed += lost
  }
}
