internal import Reactor

/// One core's connections to the endpoints, and which endpoints it should leave alone for a while.
struct Routes {
  /// The wait after a failed attempt: 100 ms, and 1.6 times more after each further one up to 3 s, ±20 %.
  private enum Backoff {
    static let first = 100.0
    static let factor = 1.6
    static let most = 3000.0
    static let jitter = 0.2
  }

  /// What this core knows of an endpoint.
  struct Place {
    var connections: [[Handle]] = Purpose.allCases.map { _ in [] }
    var failures = 0
    /// Why the last attempt failed.
    var cause = SystemError(code: 0)
    var retryAt = Instant(nanoseconds: 0)
    /// Moving average of a call's time in microseconds, for `--balance least-latency`.
    var latency = 0.0
  }

  private var places: [Place]

  init(slots: Int) { places = Array(repeating: Place(), count: slots) }

  subscript(slot: Int) -> Place {
    get { places[slot] }
    _modify { yield &places[slot] }
  }

  /// An attempt failed: leave the endpoint alone for a while.
  mutating func failed(_ slot: Int, now: Instant, _ random: inout SplitMix) {
    var wait = Backoff.first
    for _ in 0..<min(places[slot].failures, 10) { wait = min(wait * Backoff.factor, Backoff.most) }
    wait *= Double.random(in: 1 - Backoff.jitter...1 + Backoff.jitter, using: &random)
    places[slot].failures += 1
    places[slot].retryAt = now + .milliseconds(UInt64(wait))
  }

  mutating func succeeded(_ slot: Int) {
    places[slot].failures = 0
    places[slot].retryAt = Instant(nanoseconds: 0)
  }

  mutating func remove(_ handle: Handle, slot: Int, _ purpose: Purpose) {
    places[slot].connections[purpose.rawValue].removeAll { $0 == handle }
  }

  mutating func add(_ handle: Handle, slot: Int, _ purpose: Purpose) {
    places[slot].connections[purpose.rawValue].append(handle)
  }

  /// Notes how long a call took.
  mutating func took(_ span: Instant.Span, _ slot: Int) {
    let sample = Double(span.nanoseconds) / 1000
    places[slot].latency += (sample - places[slot].latency) * (places[slot].latency == 0 ? 1 : 0.1)
  }
}
