import Glibc
import Reactor
import Synchronization

/// A pipe whose reading end is read line by line.
final class LogPipe {
  let readEnd: Int32
  let writeEnd: Int32
  private var buffer: [UInt8] = []

  init() {
    var ends: [Int32] = [-1, -1]
    precondition(pipe(&ends) == 0)
    (readEnd, writeEnd) = (ends[0], ends[1])
  }

  deinit {
    Glibc.close(readEnd)
    Glibc.close(writeEnd)
  }

  struct Silence: Error {}

  /// The next line without its newline; waits for it, but throws rather than hang when none is coming.
  func line() throws -> String {
    while true {
      if let end = buffer.firstIndex(of: 10) {
        defer { buffer.removeFirst(end + 1) }
        return String(decoding: buffer[..<end], as: UTF8.self)
      }
      var state = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
      guard poll(&state, 1, 20_000) > 0 else { throw Silence() }
      var chunk = [UInt8](repeating: 0, count: 4096)
      let count = read(readEnd, &chunk, chunk.count)
      guard count > 0 else { throw Silence() }
      buffer += chunk[..<count]
    }
  }

  /// Whether nothing is left to read at this moment.
  var isDry: Bool {
    var state = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
    return buffer.isEmpty && poll(&state, 1, 0) == 0
  }
}

/// A wall clock that only moves when told to.
final class LogTestClock: Sendable {
  private let time = Mutex(LogTime(seconds: 1_787_238_795, nanoseconds: 123_456_789))
  func now() -> LogTime { time.withLock { $0 } }
  func set(_ new: LogTime) { time.withLock { $0 = new } }
}

/// The number under a key whose value is one.
func logNumber(_ key: String, in line: String) -> Int? {
  guard let start = line.firstRange(of: "\"\(key)\":")?.upperBound else { return nil }
  return Int(line[start...].prefix { $0.isNumber })
}
