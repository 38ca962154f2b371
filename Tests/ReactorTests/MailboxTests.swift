import Synchronization
import Testing

@testable import Reactor

@Suite struct MailboxTests {
  /// Noncopyable and owning, as connections handed between cores are. Its two halves must stay together.
  struct Parcel: ~Copyable, Sendable {
    let number: Int
    let inverse: Int
    init(_ number: Int) {
      self.number = number
      inverse = ~number
    }
  }

  struct Counted: ~Copyable, Sendable {
    let counter: Counter
    final class Counter: Sendable { let alive = Atomic<Int>(0) }
    init(_ counter: Counter) {
      self.counter = counter
      counter.alive.wrappingAdd(1, ordering: .relaxed)
    }
    deinit { counter.alive.wrappingSubtract(1, ordering: .relaxed) }
  }

  @Test func keepsOrderAndHandsBackWhenFull() {
    let mailbox = Mailbox<Int>(capacity: 3)
    #expect(mailbox.capacity == 4)
    #expect(mailbox.pop() == nil)
    for round in 0..<5 {
      for number in 0..<4 { #expect(mailbox.push(round * 10 + number) == nil) }
      #expect(mailbox.push(99) == 99)
      #expect(mailbox.pop() == round * 10)
      #expect(mailbox.push(round * 10 + 4) == nil)
      for number in 1...4 { #expect(mailbox.pop() == round * 10 + number) }
      #expect(mailbox.pop() == nil)
    }
  }

  @Test func destroysWhatWasNeverRead() {
    let counter = Counted.Counter()
    do {
      let mailbox = Mailbox<Counted>(capacity: 8)
      for _ in 0..<5 { if mailbox.push(Counted(counter)) != nil { Issue.record("full too early") } }
      if mailbox.pop() == nil { Issue.record("lost") }
      #expect(counter.alive.load(ordering: .relaxed) == 4)
    }
    #expect(counter.alive.load(ordering: .relaxed) == 0)
  }

  @Test func countersAreLinesApart() {
    #expect(MemoryLayout<Cursor>.stride == 128)
    let mailbox = Mailbox<Int>(capacity: 1)
    #expect(UInt(bitPattern: mailbox.writer) % 128 == 0)
    #expect(UInt(bitPattern: mailbox.reader) == UInt(bitPattern: mailbox.writer) + 128)
  }

  @Test(arguments: [1, 2, 64, 4_096]) func twoThreadsLoseNothing(capacity: Int) {
    let total = capacity == 1 ? 50_000 : 1_000_000
    let mailbox = Mailbox<Parcel>(capacity: capacity)
    let tally = Tally()
    TestThread.run([
      {
        for number in 0..<total {
          var refused = mailbox.push(Parcel(number))
          while let parcel = refused.take() {
            TestThread.pause()
            refused = mailbox.push(parcel)
          }
        }
      },
      {
        for expected in 0..<total {
          var next = mailbox.pop()
          while next == nil {
            TestThread.pause()
            next = mailbox.pop()
          }
          if let parcel = next { tally.check(parcel.number == expected && parcel.inverse == ~expected) }
        }
      },
    ])
    #expect(tally.right == total && tally.wrong == 0)
    if mailbox.pop() != nil { Issue.record("more than was sent") }
  }
}
