/// One core: a thread with its own kernel interface, clock reading and timers, and the loop that feeds a subclass.
///
/// A turn is: drain completions, run the machines on them, fire timers, let the subclass gather everything that wants
/// to leave, and submit it once while waiting for more. Nobody writes to a socket from inside `complete`.
open class Core {
  /// Which core, from 0.
  public let index: Int
  /// The operating system, as this core sees it.
  public let kernel: Kernel
  /// Coarse timers (10 ms); they come back through `expire`.
  public let timers: TimerWheel
  /// The monotonic clock as read after the last wait. Everything in a turn happens at this instant.
  public private(set) final var now: Instant
  /// Set by the subclass when it has nothing left to do: `run` returns after the turn.
  public final var isFinished = false
  /// Turns taken, for the watchdog and the metrics.
  public private(set) final var turns: UInt64 = 0

  /// Must be called on the thread that will `run` the core.
  public init(index: Int, kernel: Kernel) {
    self.index = index
    self.kernel = kernel
    now = kernel.now
    timers = TimerWheel(now: now)
  }

  /// Turns until `isFinished`.
  public final func run() {
    while !isFinished { turn() }
  }

  /// One turn: waits until something completes or the earliest timer is due.
  public final func turn() {
    kernel.turn(until: timers.nextDeadline ?? .distantFuture)
    now = kernel.now
    turns &+= 1
    let completions = kernel.completions
    for index in 0..<completions.count {
      let completion = completions[index]
      if completion.token == .wake { woken() } else { complete(completion) }
    }
    timers.advance(to: now) { expire($0) }
    finishTurn()
  }

  /// An operation of this core completed.
  open func complete(_ completion: Completion) {}

  /// A timer fired.
  open func expire(_ token: Token) {}

  /// Another thread rang: look into the mailboxes.
  open func woken() {}

  /// `run` has returned: the last thing that happens on the core's thread.
  open func ended() {}

  /// The end of a turn: whatever wants to leave is asked for here.
  open func finishTurn() {}
}
