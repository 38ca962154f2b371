import Testing
@testable import Reactor

@Suite struct LogSamplerTests {
  private let start = LogTime(seconds: 1_787_238_795, nanoseconds: 500_000_000)

  /// The numbers, counted from 1, of the calls that passed.
  private func passed(_ sampler: inout LogSampler, _ count: Int, at time: LogTime) -> [Int] {
    (1...count).filter { _ in sampler.admits(.info, "busy", at: time) }
  }

  @Test func hundredThenEveryHundredth() {
    var sampler = LogSampler()
    #expect(passed(&sampler, 450, at: start) == Array(1...100) + [200, 300, 400])
  }

  @Test func countsAnewAfterASecond() {
    var sampler = LogSampler()
    #expect(passed(&sampler, 150, at: start).count == 100)
    let almost = LogTime(seconds: start.seconds + 1, nanoseconds: 499_999_999)
    #expect(passed(&sampler, 40, at: almost).isEmpty)
    let over = LogTime(seconds: start.seconds + 1, nanoseconds: 500_000_000)
    #expect(passed(&sampler, 150, at: over).count == 100)
  }

  @Test func levelsAndMessagesCountApart() {
    var sampler = LogSampler()
    #expect(passed(&sampler, 150, at: start).count == 100)
    let warning = sampler.admits(.warn, "busy", at: start)
    let other = sampler.admits(.info, "idle", at: start)
    let same = sampler.admits(.info, "busy", at: start)
    #expect(warning && other && !same)
  }
}
