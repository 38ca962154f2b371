/// Coarse timers for connections, of which most are cancelled or moved and few ever fire.
///
/// Time is cut into slots of 10 ms. A timer fires in the first `advance` that reaches the end of the slot its
/// instant lies in: never early, and at most one slot late by the wheel's own doing. Slots are hashed into a
/// wheel of 512 lists (5.12 s); a timer farther away waits in its list and is passed over. Scheduling and
/// cancelling take constant time and allocate only when more timers are pending than ever before.
///
/// Belongs to one thread. Time comes in as a parameter.
@safe public final class TimerWheel {
  /// Names one scheduled timer. Stale once it has fired or was cancelled; a stale one is harmless.
  public struct Timer: Equatable, Sendable {
    fileprivate let index: UInt32
    fileprivate let generation: UInt32
    /// A timer that never was scheduled.
    public static let none = Timer(index: 0, generation: 0)
  }

  /// Nanoseconds in a slot.
  public static let slotNanoseconds: UInt64 = 10_000_000
  private static let slots = 512

  /// A link in a doubly linked ring. The first 512 entries are the heads of the wheel's lists and never hold a
  /// timer themselves, so that unlinking needs to know nothing about the list.
  private struct Entry {
    var next: UInt32
    var previous: UInt32
    var generation: UInt32 = 0  // odd while scheduled
    var token = Token(rawValue: 0)
    var tick: UInt64 = 0
  }

  /// Heads besides the wheel's: what was already due when it was scheduled, and what is about to fire.
  private static let overdue: UInt32 = 512
  private static let firing: UInt32 = 513
  private static let heads: UInt32 = 514

  private var entries: [Entry]
  private var firstFree = UInt32.max
  private var occupied = InlineArray<8, UInt64>(repeating: 0)
  /// For occupied slots: no timer in the list is due before this tick. Cancelling leaves it as it is.
  private var earliest = [UInt64](repeating: 0, count: slots)
  /// No timer of the wheel is due before this tick: lets an idle `advance` end after one comparison.
  private var soonest = UInt64.max
  /// The tick that the last `advance` reached.
  private var current: UInt64

  /// The number of timers that are scheduled.
  public private(set) var count = 0

  /// - Parameters:
  ///   - now: where time starts; earlier instants count as due.
  ///   - pending: timers to make room for at once. More than that makes the pool grow.
  public init(now: Instant, pending: Int = 0) {
    current = now.nanoseconds / Self.slotNanoseconds
    entries = (0..<Self.heads).map { Entry(next: $0, previous: $0) }
    entries.reserveCapacity(Int(Self.heads) + pending)
  }

  /// Fires `token` in the first `advance` that reaches `instant`, rounded up to the end of its slot. An instant
  /// that has passed already counts as now and fires in the next `advance`.
  public func schedule(at instant: Instant, _ token: Token) -> Timer {
    let (whole, rest) = instant.nanoseconds.quotientAndRemainder(dividingBy: Self.slotNanoseconds)
    let tick = whole + (rest > 0 ? 1 : 0)
    let index = takeEntry()
    entries[Int(index)].token = token
    entries[Int(index)].tick = tick
    entries[Int(index)].generation &+= 1
    count += 1
    if tick > current {
      enlist(index, tick: tick)
    } else {
      append(index, to: Self.overdue)
    }
    return Timer(index: index, generation: entries[Int(index)].generation)
  }

  /// Makes sure the timer does not fire. Harmless when it has, or was cancelled before.
  public func cancel(_ timer: Timer) {
    let index = Int(timer.index)
    guard index < entries.count, timer.generation & 1 == 1, entries[index].generation == timer.generation
    else { return }
    unlink(timer.index)
    giveBack(timer.index)
  }

  /// When to call `advance` next; nil without timers. Never later than the earliest timer's slot ends. May be
  /// earlier after a cancellation, in which case that `advance` fires nothing and finds the right time.
  public var nextDeadline: Instant? {
    guard count > 0 else { return nil }
    let tick = entries[Int(Self.overdue)].next == Self.overdue ? soonest : current
    let (nanoseconds, overflow) = tick.multipliedReportingOverflow(by: Self.slotNanoseconds)
    return overflow ? .distantFuture : Instant(nanoseconds: nanoseconds)
  }

  /// Fires everything that is due, in the order of slots unless more than a turn of the wheel has passed.
  ///
  /// `body` may schedule and cancel. What it schedules fires in a later `advance`; what it cancels does not
  /// fire any more even if it is due. A clock that goes back is taken as standing still.
  public func advance(to now: Instant, _ body: (Token) -> Void) {
    let target = now.nanoseconds / Self.slotNanoseconds
    moveAll(from: Self.overdue, to: Self.firing)
    if target >= soonest { collect(upTo: target) }
    current = max(current, target)
    while entries[Int(Self.firing)].next != Self.firing {
      let index = entries[Int(Self.firing)].next
      let token = entries[Int(index)].token
      unlink(index)
      giveBack(index)
      body(token)
    }
  }
}

// MARK: - The wheel

extension TimerWheel {
  private func enlist(_ index: UInt32, tick: UInt64) {
    let slot = Int(tick % UInt64(Self.slots))
    let bit: UInt64 = 1 << UInt64(slot % 64)
    if occupied[slot / 64] & bit == 0 {
      occupied[slot / 64] |= bit
      earliest[slot] = tick
    } else {
      earliest[slot] = min(earliest[slot], tick)
    }
    soonest = min(soonest, tick)
    append(index, to: UInt32(slot))
  }

  /// Moves what is due by `target` to the firing list. However long the jump, each slot is visited once.
  private func collect(upTo target: UInt64) {
    soonest = .max
    var distance = 1
    while let step = nextOccupied(from: distance) {
      let nearest = current + UInt64(step)
      let slot = Int(nearest % UInt64(Self.slots))
      if earliest[slot] <= target { collect(slot: slot, upTo: target) }
      if isOccupied(slot) { soonest = min(soonest, earliest[slot]) }
      // Slots farther on hold later ticks than `nearest`, none of them due.
      if soonest <= nearest { return }
      distance = step + 1
    }
  }

  private func collect(slot: Int, upTo target: UInt64) {
    var left = UInt64.max
    var index = entries[slot].next
    while index >= Self.heads {
      let next = entries[Int(index)].next
      if entries[Int(index)].tick <= target {
        unlink(index)
        append(index, to: Self.firing)
      } else {
        left = min(left, entries[Int(index)].tick)
      }
      index = next
    }
    earliest[slot] = left
  }

  private func isOccupied(_ slot: Int) -> Bool { occupied[slot / 64] >> UInt64(slot % 64) & 1 == 1 }

  /// The smallest number of steps, at least `distance` and at most one turn, to a slot that has timers.
  private func nextOccupied(from distance: Int) -> Int? {
    var step = distance
    while step <= Self.slots {
      let slot = Int((current + UInt64(step)) % UInt64(Self.slots))
      let word = occupied[slot / 64] >> UInt64(slot % 64)
      if word != 0 {
        let found = step + word.trailingZeroBitCount
        return found <= Self.slots ? found : nil
      }
      step += 64 - slot % 64
    }
    return nil
  }
}

// MARK: - The pool and its lists

extension TimerWheel {
  private func takeEntry() -> UInt32 {
    guard firstFree != .max else {
      entries.append(Entry(next: 0, previous: 0))
      return UInt32(entries.count - 1)
    }
    let index = firstFree
    firstFree = entries[Int(index)].next
    return index
  }

  private func giveBack(_ index: UInt32) {
    entries[Int(index)].generation &+= 1
    entries[Int(index)].next = firstFree
    firstFree = index
    count -= 1
    if count == 0 { soonest = .max }
  }

  private func append(_ index: UInt32, to head: UInt32) {
    let last = entries[Int(head)].previous
    entries[Int(index)].previous = last
    entries[Int(index)].next = head
    entries[Int(last)].next = index
    entries[Int(head)].previous = index
  }

  /// Takes an entry out of whichever list it is in, and notes when that leaves a slot of the wheel empty.
  private func unlink(_ index: UInt32) {
    let next = entries[Int(index)].next
    let previous = entries[Int(index)].previous
    entries[Int(previous)].next = next
    entries[Int(next)].previous = previous
    if next == previous && next < UInt32(Self.slots) {
      occupied[Int(next) / 64] &= ~(1 << UInt64(next % 64))
    }
  }

  private func moveAll(from source: UInt32, to head: UInt32) {
    while entries[Int(source)].next != source {
      let index = entries[Int(source)].next
      unlink(index)
      append(index, to: head)
    }
  }
}
