import Glibc
import Reactor
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct LogTests {
  private let pipe = LogPipe()
  private let clock = LogTestClock()

  private func makeLog(
    level: LogLevel = .info, format: LogFormat = .json, bufferBytes: Int = 1 << 20
  ) throws -> Log {
    try Log(
      descriptor: pipe.writeEnd, level: level, format: format, bufferBytes: bufferBytes,
      clock: { [clock] in clock.now() })
  }

  @Test func callBecomesALine() throws {
    let log = try makeLog()
    log.info(
      "ready to proxy client requests", .strings("endpoints", ["a:1", "b:2"]), file: "Proxy/G.swift", line: 9)
    #expect(
      try pipe.line() == "{\"level\":\"info\",\"ts\":\"2026-08-20T15:13:15.123456Z\","
        + "\"caller\":\"proxy/G.swift:9\",\"msg\":\"ready to proxy client requests\",\"endpoints\":[\"a:1\",\"b:2\"]}"
    )
    log.close()
  }

  @Test func callerIsTheCallSite() throws {
    let log = try makeLog(format: .console)
    log.error("x"); let line = #line
    #expect(try pipe.line() == "2026-08-20T15:13:15.123456Z\tERROR\treactortests/LogTests.swift:\(line)\tx")
    log.close()
  }

  @Test func lowerLevelsAreNotEvenBuilt() throws {
    let log = try makeLog(level: .warn)
    var built = 0
    func message(_ text: String) -> String {
      built += 1
      return text
    }
    log.debug(message("d"))
    log.info(message("i"))
    #expect(built == 0 && !log.isEnabled(.info) && log.isEnabled(.warn))
    log.warn(message("w"))
    #expect(built == 1)
    #expect(try pipe.line().contains("\"msg\":\"w\""))
    log.close()
    #expect(pipe.isDry)
  }

  @Test func debugLevelShowsEverything() throws {
    let log = try makeLog(level: .debug)
    log.debug("1")
    log.info("2")
    log.warn("3")
    log.error("4")
    log.fatal("5")
    for (number, level) in zip(1...5, LogLevel.allCases) {
      let line = try pipe.line()
      #expect(line.hasPrefix("{\"level\":\"\(level.name)\"") && line.contains("\"msg\":\"\(number)\""))
    }
    log.close()
  }

  @Test func repeatedLinesAreThinnedOut() throws {
    let log = try makeLog()
    for number in 1...350 { log.info("again", .int("n", Int64(number))) }
    clock.set(LogTime(seconds: clock.now().seconds + 1, nanoseconds: 999_999_999))
    log.info("again", .int("n", 1000))
    for expected in Array(1...100) + [200, 300, 1000] {
      #expect(try logNumber("n", in: pipe.line()) == expected)
    }
    log.close()
    #expect(pipe.isDry)
  }

  @Test func fatalIsWrittenBeforeItReturns() throws {
    let log = try makeLog()
    log.fatal("the end")
    #expect(!pipe.isDry)
    log.close()
  }

  @Test func closeWritesAllAndRefusesMore() throws {
    let log = try makeLog()
    for number in 0..<200 { log.info("line \(number)") }
    #expect(log.close())
    log.info("too late")
    #expect(log.flush())
    for number in 0..<200 { #expect(try pipe.line().contains("\"msg\":\"line \(number)\"")) }
    #expect(pipe.isDry)
  }

  @Test func droppedLogStillWrites() throws {
    try makeLog().info("last words")
    #expect(try pipe.line().contains("last words"))
  }

  @Test func nonBlockingDescriptorLosesNothing() throws {
    _ = fcntl(pipe.writeEnd, F_SETFL, O_NONBLOCK)
    let log = try makeLog()
    let padding = String(repeating: "x", count: 1000)
    for number in 0..<300 { log.info("line \(number)", .string("padding", padding)) }
    for number in 0..<300 { #expect(try pipe.line().contains("\"msg\":\"line \(number)\"")) }
    #expect(log.close())
  }
}
