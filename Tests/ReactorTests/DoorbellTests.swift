import Glibc
import Reactor
import Synchronization
import Testing

@Suite struct DoorbellTests {
  @Test func onlyTheFirstRingWakes() {
    let bell = Doorbell()
    #expect(!bell.answer())
    #expect(bell.ring())
    #expect(!bell.ring() && !bell.ring())
    #expect(bell.answer())
    #expect(!bell.answer())
    #expect(bell.ring())
  }

  /// Every interleaving of one writer's and one reader's steps, tried in turn: whenever both have come to rest,
  /// no message lies unread.
  @Test func noInterleavingLosesAWakeUp() {
    var schedules = 0
    for choices in 0..<UInt32(1 << 14) {
      let mailbox = Mailbox<Int>(capacity: 4)
      let bell = Doorbell()
      var sent = 0, received = 0, pendingWakes = 0
      var writerPushed = false, reader = Reader.asleep
      func writerStep() {
        if writerPushed {
          if bell.ring() { pendingWakes += 1 }
        } else if mailbox.push(sent) == nil {
          sent += 1
        }
        writerPushed.toggle()
      }
      func readerStep() {
        switch reader {
        case .asleep:
          pendingWakes -= 1
          reader = .awake
        case .awake:
          bell.answer()
          reader = .draining
        case .draining:
          if mailbox.pop() == nil { reader = .asleep } else { received += 1 }
        }
      }
      var step: UInt32 = 0
      while true {
        let writerCan = sent < 3 || writerPushed
        let readerCan = reader != .asleep || pendingWakes > 0
        guard writerCan || readerCan else { break }
        let writes = writerCan && (!readerCan || choices >> min(step, 31) & 1 == 1)
        if writes { writerStep() } else { readerStep() }
        step += 1
      }
      if received != 3 { Issue.record("schedule \(choices) lost a wake-up") }
      schedules += 1
    }
    #expect(schedules == 1 << 14)
  }

  enum Reader { case asleep, awake, draining }

  /// What was written before a ring is seen after the answer, with no other synchronisation in between: the
  /// thread sanitizer watches `cell`.
  @Test func ringsCarryWhatWasWritten() {
    final class Shared: @unchecked Sendable {
      var cell = 0
      let bell = Doorbell()
      let seen = Atomic<Int>(0)
    }
    let shared = Shared()
    let tally = Tally()
    let rounds = 50_000
    TestThread.run([
      {
        for round in 1...rounds {
          shared.cell = round
          tally.check(shared.bell.ring())
          while shared.seen.load(ordering: .acquiring) < round { TestThread.pause() }
        }
      },
      {
        for round in 1...rounds {
          while !shared.bell.answer() { TestThread.pause() }
          tally.check(shared.cell == round)
          shared.seen.store(round, ordering: .releasing)
        }
      },
    ])
    #expect(tally.right == 2 * rounds && tally.wrong == 0)
  }

  /// Two threads, a reader that really sleeps, and a wake-up only when the bell asks for one. A lost one would
  /// leave the reader asleep for ever; the poll's limit turns that into a failure.
  @Test func aSleepingReaderGetsEverything() {
    let total = 1_000_000
    let mailbox = Mailbox<Int>(capacity: 256)
    let bell = Doorbell()
    var pipes: [Int32] = [-1, -1]
    #expect(pipe(&pipes) == 0)
    let ends = pipes
    defer { for end in ends { close(end) } }
    let tally = Tally()
    let wakes = Atomic<Int>(0)
    let hasGivenUp = Atomic<Bool>(false)
    TestThread.run([
      {
        func ring() {
          guard bell.ring() else { return }
          wakes.wrappingAdd(1, ordering: .relaxed)
          var byte: UInt8 = 1
          write(ends[1], &byte, 1)
        }
        for number in 0..<total {
          while mailbox.push(number) != nil {
            if hasGivenUp.load(ordering: .relaxed) { return }
            ring()
            TestThread.pause()
          }
          if number % 16 == 15 || number == total - 1 { ring() }
        }
      },
      {
        var expected = 0
        while expected < total {
          var poll = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
          guard Glibc.poll(&poll, 1, 10_000) == 1 else {
            hasGivenUp.store(true, ordering: .relaxed)
            return
          }
          var byte: UInt8 = 0
          read(ends[0], &byte, 1)
          bell.answer()
          while let number = mailbox.pop() {
            tally.check(number == expected)
            expected += 1
          }
        }
      },
    ])
    #expect(tally.right == total && tally.wrong == 0)
    let (isLost, systemCalls) = (hasGivenUp.load(ordering: .relaxed), wakes.load(ordering: .relaxed))
    #expect(!isLost, "a wake-up was lost")
    #expect(systemCalls < total)
  }
}
