import Reactor
import Testing

@Suite struct TimerWheelTests {
  static func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
  static func token(_ number: UInt64) -> Token { Token(rawValue: number) }

  func fired(_ wheel: TimerWheel, at milliseconds: UInt64) -> [UInt64] {
    var tokens: [UInt64] = []
    wheel.advance(to: Self.at(milliseconds)) { tokens.append($0.rawValue) }
    return tokens
  }

  @Test func neverEarlyAndAtMostASlotLate() {
    let wheel = TimerWheel(now: Self.at(1_000))
    _ = wheel.schedule(at: Instant(nanoseconds: 1_010_000_001), Self.token(1))
    _ = wheel.schedule(at: Self.at(1_010), Self.token(2))
    #expect(wheel.nextDeadline == Self.at(1_010))
    #expect(fired(wheel, at: 1_009) == [])
    #expect(fired(wheel, at: 1_010) == [2])
    #expect(wheel.nextDeadline == Self.at(1_020))
    #expect(fired(wheel, at: 1_019) == [])
    #expect(fired(wheel, at: 1_020) == [1])
    #expect(wheel.nextDeadline == nil && wheel.count == 0)
  }

  @Test func thePastIsNow() {
    let wheel = TimerWheel(now: Self.at(5_000))
    _ = wheel.schedule(at: Self.at(3), Self.token(1))
    #expect(wheel.nextDeadline == Self.at(5_000))
    #expect(fired(wheel, at: 4_000) == [1], "a clock that goes back stands still")
  }

  @Test func farTimersWaitForTheirTurn() {
    let wheel = TimerWheel(now: Self.at(0))
    _ = wheel.schedule(at: Self.at(10), Self.token(1))
    _ = wheel.schedule(at: Self.at(10 + 5_120), Self.token(2))
    _ = wheel.schedule(at: Self.at(10 + 5_120 * 1_000), Self.token(3))
    #expect(fired(wheel, at: 10) == [1])
    #expect(wheel.nextDeadline == Self.at(5_130))
    #expect(fired(wheel, at: 5_130) == [2])
    #expect(wheel.nextDeadline == Self.at(5_120_010), "no turn of the wheel wakes an idle core")
    #expect(fired(wheel, at: 5_120_000) == [])
    #expect(fired(wheel, at: 5_120_010) == [3])
  }

  @Test func theEndOfTimeNeverComes() {
    let wheel = TimerWheel(now: Self.at(0))
    _ = wheel.schedule(at: .distantFuture, Self.token(1))
    #expect(wheel.nextDeadline == .distantFuture)
    #expect(fired(wheel, at: 10_000_000_000) == [])
    wheel.advance(to: .distantFuture) { _ in }
    #expect(wheel.count == 1)
  }

  @Test func cancellingIsHarmlessWheneverItComes() {
    let wheel = TimerWheel(now: Self.at(0))
    let first = wheel.schedule(at: Self.at(10), Self.token(1))
    wheel.cancel(.none)
    wheel.cancel(first)
    wheel.cancel(first)
    #expect(wheel.count == 0 && wheel.nextDeadline == nil)
    let second = wheel.schedule(at: Self.at(10), Self.token(2))
    wheel.cancel(first)
    #expect(first != second && wheel.count == 1)
    #expect(fired(wheel, at: 10) == [2])
    wheel.cancel(second)
    #expect(wheel.count == 0)
  }

  @Test func bodiesMayCancelAndScheduleButNotLoop() {
    let wheel = TimerWheel(now: Self.at(0))
    let timers = (0..<4).map { wheel.schedule(at: Self.at(20), Self.token($0)) }
    var tokens: [UInt64] = []
    wheel.advance(to: Self.at(20)) { token in
      tokens.append(token.rawValue)
      wheel.cancel(timers[Int(token.rawValue) ^ 1])
      _ = wheel.schedule(at: Self.at(15), Self.token(0))
      _ = wheel.schedule(at: Self.at(30), Self.token(2))
    }
    #expect(tokens == [0, 2])
    #expect(wheel.nextDeadline == Self.at(20))
    #expect(fired(wheel, at: 20) == [0, 0])
    #expect(fired(wheel, at: 30) == [2, 2])
  }

  /// What the wheel promises, in the plainest way: a list, with instants rounded up to slots.
  struct Model {
    var pending: [(due: UInt64, number: UInt64)] = []
    var now: UInt64

    mutating func schedule(at instant: Instant, _ number: UInt64) {
      let slot = TimerWheel.slotNanoseconds
      let due = max(now / slot, instant.nanoseconds / slot + (instant.nanoseconds % slot > 0 ? 1 : 0))
      pending.append((due, number))
    }
    mutating func cancel(_ number: UInt64) { pending.removeAll { $0.number == number } }
    mutating func advance(to instant: Instant) -> [(due: UInt64, number: UInt64)] {
      now = max(now, instant.nanoseconds)
      let reached = now / TimerWheel.slotNanoseconds
      let due = pending.filter { $0.due <= reached }.sorted { $0.due < $1.due }
      pending.removeAll { $0.due <= reached }
      return due
    }
  }

  static func someSpan(_ random: inout SplitMix) -> UInt64 {
    let limits: [UInt64] = [1, 9_999_999, 30_000_000, 5_110_000_000, 5_130_000_000, 7_200_000_000_000]
    return random.next() % limits[Int(random.next() % 6)]
  }

  @Test(arguments: 0..<20) func agreesWithASortedList(block: UInt64) {
    for seed in block * 100..<block * 100 + 100 { compare(seed: seed) }
  }

  func compare(seed: UInt64) {
    var random = SplitMix(seed: seed)
    var now = random.next() % 1_000_000_000_000
    let wheel = TimerWheel(now: Instant(nanoseconds: now))
    var model = Model(now: now)
    var timers: [TimerWheel.Timer] = []
    func schedule() {
      let instant = Instant(nanoseconds: now + Self.someSpan(&random) - min(now, random.next() % 20_000_000))
      model.schedule(at: instant, UInt64(timers.count))
      timers.append(wheel.schedule(at: instant, Self.token(UInt64(timers.count))))
    }
    func cancel() {
      guard !timers.isEmpty else { return }
      let number = Int(random.next() % UInt64(timers.count))
      wheel.cancel(timers[number])
      model.cancel(UInt64(number))
    }
    for _ in 0..<120 {
      switch random.next() % 8 {
      case 0...3: schedule()
      case 4: cancel()
      default:
        let before = now
        if let next = wheel.nextDeadline, random.next() % 3 == 0 {
          now = max(now, next.nanoseconds)
        } else {
          now += Self.someSpan(&random)
        }
        let expected = model.advance(to: Instant(nanoseconds: now))
        var actual: [UInt64] = []
        wheel.advance(to: Instant(nanoseconds: now)) { token in
          actual.append(token.rawValue)
          if random.next() % 4 == 0 { schedule() }
        }
        #expect(actual.sorted() == expected.map(\.number).sorted(), "seed \(seed)")
        if now - before < 5_000_000_000 {
          let dues = Dictionary(uniqueKeysWithValues: expected.map { ($0.number, $0.due) })
          let order = actual.compactMap { dues[$0] }
          #expect(order == order.sorted(), "seed \(seed)")
        }
      }
      checkDeadline(wheel, model, seed)
    }
  }

  func checkDeadline(_ wheel: TimerWheel, _ model: Model, _ seed: UInt64) {
    #expect(wheel.count == model.pending.count, "seed \(seed)")
    let earliest = model.pending.map(\.due).min()
    #expect((wheel.nextDeadline == nil) == (earliest == nil), "seed \(seed)")
    if let next = wheel.nextDeadline, let earliest {
      #expect(next.nanoseconds <= earliest * TimerWheel.slotNanoseconds, "seed \(seed)")
    }
  }

  /// A loop that sleeps until `nextDeadline` must get there, not be woken again and again.
  @Test func deadlinesMakeProgress() {
    var random = SplitMix(seed: 1)
    let wheel = TimerWheel(now: Self.at(0))
    let timers = (0..<1_000).map { number in
      wheel.schedule(at: Self.at(random.next() % 7_200_000), Self.token(number))
    }
    for timer in timers.prefix(500) { wheel.cancel(timer) }
    var wakes = 0
    while let next = wheel.nextDeadline, wakes < 2_000 {
      wheel.advance(to: next) { _ in }
      wakes += 1
    }
    #expect(wheel.count == 0)
    #expect(wakes <= 1_000)
  }
}
