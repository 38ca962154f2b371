import Glibc
import Reactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct LogWriterTests {
  private let pipe = LogPipe()
  private let padding = String(repeating: "x", count: 400)

  private func makeLog(bufferBytes: Int = 1 << 20) throws -> Log {
    try Log(
      descriptor: pipe.writeEnd, bufferBytes: bufferBytes,
      clock: { LogTime(seconds: 1_787_238_795, nanoseconds: 0) })
  }

  /// Reads lines numbered from `first` to `last` and checks that each gap is announced where it is.
  private func readNumbered(_ first: Int, through last: Int) throws -> (lines: Int, missing: Int) {
    var (next, lines, missing) = (first, 0, 0)
    while next <= last {
      let line = try pipe.line()
      if let number = logNumber("n", in: line) {
        #expect(number == next)
        (next, lines) = (next + 1, lines + 1)
      } else {
        let head = "{\"level\":\"warn\",\"ts\":\"2026-08-20T15:13:15.000000Z\",\"caller\":\"reactor/"
        #expect(line.hasPrefix(head))
        #expect(line.contains("\"msg\":\"log lines dropped\",\"count\":"))
        let count = logNumber("count", in: line) ?? 0
        #expect(count > 0)
        (next, missing) = (next + max(1, count), missing + count)
      }
    }
    return (lines, missing)
  }

  @Test func stuckPipeBlocksNobodyAndTheGapIsReported() throws {
    let log = try makeLog(bufferBytes: 1 << 16)
    // Long and short lines by turns: a short one that still fits must not slip in behind a dropped long one.
    let long = String(repeating: "x", count: 3000)
    for number in 1...1000 {
      log.info("line \(number)", .int("n", Int64(number)), .string("p", number % 2 == 0 ? long : ""))
    }
    #expect(!log.flush(atMost: .milliseconds(1)))
    let (lines, missing) = try readNumbered(1, through: 1000)
    #expect(missing > 0 && lines + missing == 1000)
    // The pipe takes 64 KiB, the buffer as much again, and two lines are more than 3 KiB.
    #expect(lines > 30 && lines < 300)

    log.info("line 1001", .int("n", 1001))
    #expect(try readNumbered(1001, through: 1001) == (1, 0))
    #expect(log.close())
    #expect(pipe.isDry)
  }

  @Test func lineLargerThanTheBufferIsReportedAtOnce() throws {
    let log = try makeLog(bufferBytes: 300)
    log.info("too long", .string("p", padding))
    #expect(try pipe.line().contains("\"msg\":\"log lines dropped\",\"count\":1}"))
    log.info("fits")
    #expect(try pipe.line().contains("\"msg\":\"fits\""))
    #expect(log.close())
  }

  @Test func flushWritesAll() throws {
    let log = try makeLog()
    for number in 1...100 {
      log.info("line \(number)", .int("n", Int64(number)))
      #expect(log.flush())
      #expect(!pipe.isDry)
      #expect(try logNumber("n", in: pipe.line()) == number)
      #expect(pipe.isDry)
    }
    #expect(log.close())
  }

  @Test func failingDescriptorIsSurvivedAndReported() throws {
    let descriptor = open("/dev/full", O_WRONLY)
    let log = try Log(descriptor: descriptor)
    for number in 1...7 {
      log.info("line \(number)")
      #expect(log.flush())
    }
    dup2(pipe.writeEnd, descriptor)
    log.info("back")
    #expect(try pipe.line().contains("\"msg\":\"back\""))
    #expect(try pipe.line().contains("\"msg\":\"log lines dropped\",\"count\":7}"))
    #expect(log.close())
    close(descriptor)
  }

  @Test func readerThatWentAwayDoesNotKill() throws {
    var ends: [Int32] = [-1, -1]
    #expect(Glibc.pipe(&ends) == 0)
    close(ends[0])
    let log = try Log(descriptor: ends[1])
    log.info("nobody hears this")
    #expect(log.close())
    close(ends[1])
  }

  @Test func eightThreadsNeverInterleave() throws {
    let log = try makeLog()
    let threads = (0..<8).map { thread in
      LogTestThread {
        for number in 0..<300 {
          log.info("thread \(thread) line \(number)", .int("t", Int64(thread)), .int("n", Int64(number)))
        }
      }
    }
    var next = [Int](repeating: 0, count: 8)
    for _ in 0..<2400 {
      let line = try pipe.line()
      let thread = try #require(logNumber("t", in: line))
      let number = next[thread]
      next[thread] += 1
      #expect(line.hasPrefix("{\"level\":\"info\","))
      #expect(line.hasSuffix("\"msg\":\"thread \(thread) line \(number)\",\"t\":\(thread),\"n\":\(number)}"))
    }
    for thread in threads { thread.join() }
    #expect(next == [Int](repeating: 300, count: 8))
    #expect(log.close())
    #expect(pipe.isDry)
  }
}

/// A thread of its own, which a task would not be on two cores.
private final class LogTestThread {
  private let thread: pthread_t

  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  init(_ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    let context = Unmanaged.passRetained(Body(body)).toOpaque()
    let code = pthread_create(
      &thread, nil,
      { context in
        context.map { Unmanaged<Body>.fromOpaque($0).takeRetainedValue().run() }
        return nil
      }, context)
    precondition(code == 0)
    self.thread = thread
  }

  func join() { pthread_join(thread, nil) }
}
