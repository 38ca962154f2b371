import Synchronization
import Testing

@testable import Reactor

@Suite struct BroadcastRingTests {
  /// Three words and a half. The parts must stay together: a torn copy shows.
  struct Event: BitwiseCopyable, Sendable, Equatable {
    let number: UInt64
    let inverse: UInt64
    let mixed: UInt64
    let low: UInt32
    init(_ number: UInt64) {
      self.number = number
      inverse = ~number
      mixed = number &* 0x9E37_79B9_7F4A_7C15
      low = UInt32(truncatingIfNeeded: number)
    }
  }

  func drained(_ ring: BroadcastRing<Event>, _ reader: Int, limit: Int = .max) -> [UInt64]? {
    var numbers: [UInt64] = []
    let count = ring.drain(reader: reader, limit: limit) { event in
      #expect(event == Event(event.number))
      numbers.append(event.number)
    }
    if let count { #expect(count == numbers.count) }
    return count == nil ? nil : numbers
  }

  @Test func everyReaderGetsEverythingInOrder() {
    let ring = BroadcastRing<Event>(capacity: 4, readers: 2)
    #expect(drained(ring, 0) == [])
    for number in 0..<3 as Range<UInt64> { #expect(ring.push(Event(number))) }
    #expect(drained(ring, 0) == [0, 1, 2])
    #expect(ring.lag(0) == 0 && ring.lag(1) == 3)
    #expect(drained(ring, 1, limit: 2) == [0, 1])
    #expect(drained(ring, 1, limit: 0) == [])
    for number in 3..<6 as Range<UInt64> { #expect(ring.push(Event(number))) }
    #expect(!ring.push(Event(6)), "reader 1 is a whole ring behind")
    #expect(ring.lag(1) == ring.capacity)
    #expect(drained(ring, 1) == [2, 3, 4, 5])
    #expect(ring.push(Event(6)))
    #expect(drained(ring, 0) == [3, 4, 5, 6])
    #expect(drained(ring, 1) == [6])
  }

  @Test func theSlowAreCutLooseAndStartAgainAtTheEnd() {
    let ring = BroadcastRing<Event>(capacity: 2, readers: 2)
    for number in 0..<2 as Range<UInt64> { #expect(ring.push(Event(number))) }
    #expect(drained(ring, 0) == [0, 1])
    #expect(!ring.push(Event(2)))
    ring.detach(1)
    ring.detach(1)
    #expect(ring.push(Event(2)))
    #expect(ring.lag(1) == nil)
    #expect(drained(ring, 1) == nil)
    ring.attach(1)
    #expect(ring.lag(1) == 0)
    #expect(drained(ring, 1) == [])
    #expect(ring.push(Event(3)))
    #expect(drained(ring, 1) == [3])
    ring.attach(1)
    #expect(!ring.push(Event(4)), "reader 0 still holds its place")
    #expect(drained(ring, 0) == [2, 3])
  }

  @Test func withNobodyListeningNothingIsFull() {
    let ring = BroadcastRing<Event>(capacity: 1, readers: 1)
    ring.detach(0)
    for number in 0..<10 as Range<UInt64> { #expect(ring.push(Event(number))) }
    let alone = BroadcastRing<Event>(capacity: 1, readers: 0)
    #expect(alone.push(Event(1)) && alone.push(Event(2)))
  }

  /// The owner cuts the reader loose and overwrites in the middle of its batch: what was copied is delivered,
  /// nothing that was overwritten is.
  @Test func aCutInMidBatchEndsTheBatch() {
    let ring = BroadcastRing<Event>(capacity: 4, readers: 1)
    for number in 0..<4 as Range<UInt64> { #expect(ring.push(Event(number))) }
    var seen: [UInt64] = []
    let count = ring.drain(reader: 0) { event in
      seen.append(event.number)
      guard event.number == 1 else { return }
      ring.detach(0)
      for number in 4..<8 as Range<UInt64> { #expect(ring.push(Event(number))) }
    }
    #expect(count == nil && seen == [0, 1])
    #expect(ring.lag(0) == nil)
  }

  /// A reader that fell asleep between reading the tail and taking its place there, while the writer went once
  /// round and saw nobody.
  @Test func attachingSlowlyDoesNotReadTheOverwritten() {
    let ring = BroadcastRing<Event>(capacity: 4, readers: 1)
    ring.detach(0)
    for number in 0..<10 as Range<UInt64> { #expect(ring.push(Event(number))) }
    ring.takePlace(0, at: 1)
    #expect(ring.lag(0) == 0)
    for number in 10..<14 as Range<UInt64> { #expect(ring.push(Event(number))) }
    #expect(!ring.push(Event(14)))
    #expect(drained(ring, 0) == [10, 11, 12, 13])
  }

  @Test func cursorsAreLinesApart() {
    let ring = BroadcastRing<Event>(capacity: 1, readers: 2)
    #expect(MemoryLayout<Cursor>.stride == 128 && UInt(bitPattern: ring.cursors) % 128 == 0)
  }

  /// Plain memory that events refer to, one cell more than the ring has room: the cell of an event is written
  /// again once every reader is past that event. The thread sanitizer watches it.
  final class Cells: @unchecked Sendable {
    private let cells: UnsafeMutableBufferPointer<UInt64>
    init(_ count: Int) {
      cells = .allocate(capacity: count)
      cells.initialize(repeating: .max)
    }
    deinit { cells.deallocate() }
    subscript(event: UInt64) -> UInt64 {
      get { cells[Int(event % UInt64(cells.count))] }
      set { cells[Int(event % UInt64(cells.count))] = newValue }
    }
  }

  @Test(arguments: [2, 1_024]) func threeThreadsLoseNothing(capacity: Int) {
    let total: UInt64 = capacity == 2 ? 50_000 : 1_000_000
    let ring = BroadcastRing<Event>(capacity: capacity, readers: 2)
    let cells = Cells(capacity + 1)
    let tally = Tally()
    let readers = (0..<2).map { reader -> @Sendable () -> Void in
      {
        var expected: UInt64 = 0
        while expected < total {
          let count = ring.drain(reader: reader) { event in
            tally.check(event == Event(expected) && cells[event.number] == expected)
            expected += 1
          }
          if count == 0 { TestThread.pause() }
        }
      }
    }
    let writer: @Sendable () -> Void = {
      for number in 0..<total {
        cells[number] = number
        while !ring.push(Event(number)) { TestThread.pause() }
      }
    }
    TestThread.run(readers + [writer])
    #expect(tally.right == 2 * Int(total) && tally.wrong == 0)
  }

  /// A writer that waits for nobody. Readers are cut loose again and again, often in mid-copy, and attach while
  /// the writer goes on. Between two cuts each sees a gapless run, and no event is ever torn or seen twice.
  @Test func cutsNeverTearAnEvent() {
    let (least, most): (UInt64, UInt64) = (500_000, 20_000_000)
    let ring = BroadcastRing<Event>(capacity: 8, readers: 2)
    let done = Flag()
    let tally = Tally()
    let cuts = Tally()
    let readers = (0..<2).map { reader -> @Sendable () -> Void in
      {
        var last: UInt64?
        var isGapAllowed = false
        while true {
          let isLastLook = done.isSet.load(ordering: .acquiring)
          let count = ring.drain(reader: reader) { event in
            let follows = last.map { isGapAllowed ? event.number > $0 : event.number == $0 + 1 } ?? true
            tally.check(follows && event == Event(event.number))
            last = event.number
            isGapAllowed = false
          }
          if count == nil {
            isGapAllowed = true
            ring.attach(reader)
          } else if count == 0 {
            if isLastLook { return }
            TestThread.pause()
          }
        }
      }
    }
    let writer: @Sendable () -> Void = {
      var number: UInt64 = 0
      // On busy cores the readers may not have run at all after the least.
      while number < least || (number < most && min(tally.right, cuts.right) < 100) {
        if number % 64 == 0 { TestThread.pause() }
        while !ring.push(Event(number)) {
          for reader in 0..<2 where (ring.lag(reader) ?? 0) >= ring.capacity {
            ring.detach(reader)
            cuts.check(true)
          }
        }
        number += 1
      }
      done.isSet.store(true, ordering: .releasing)
    }
    TestThread.run(readers + [writer])
    #expect(tally.wrong == 0)
    #expect(tally.right >= 100 && cuts.right >= 100)
  }

  final class Flag: Sendable { let isSet = Atomic<Bool>(false) }
}
