internal import Reactor

/// A token bucket in eight bytes: the instant at which everything admitted so far has been worked off.
struct TokenBucket {
  private var settled: UInt64 = 0

  /// Takes `cost` tokens of a bucket that holds `burst` and gets `perSecond` new ones. False when it is empty.
  mutating func admit(_ now: Instant, cost: UInt64 = 1, burst: UInt64, perSecond: UInt64) -> Bool {
    let token = 1_000_000_000 / perSecond
    settled = max(settled, now.nanoseconds) &+ cost &* token
    return settled &- now.nanoseconds <= burst &* token
  }
}

/// How many bytes of the output only answer the peer: what it can make grow by asking and not reading.
///
/// Answers count in two generations. The older ones are gone when the output is consumed up to where it ended at the
/// change of generations.
struct AnswerBacklog {
  private var older = 0
  private var newer = 0
  private var mark: UInt64 = 0

  /// Notes an answer that is about to be written. `produced` and `consumed` count the output's bytes since the start.
  ///
  /// - Returns: false when too much waits.
  mutating func add(_ bytes: Int, produced: UInt64, consumed: UInt64) -> Bool {
    if consumed >= mark {
      older = newer
      newer = 0
      mark = produced
    }
    newer &+= bytes
    return older &+ newer <= Limits.http2AnswerBytes
  }
}
