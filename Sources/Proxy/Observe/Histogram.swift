/// Counts observations in fixed buckets, as a Prometheus histogram. A value: each core has its own, and they are
/// merged when the metrics are read.
public struct Histogram: Hashable, Sendable {
  /// Upper bounds of the buckets, ascending and finite; above the last one lies the `+Inf` bucket.
  public let bounds: [Double]
  /// Observations in each bucket alone, the `+Inf` bucket last.
  private var counts: [UInt64]
  /// The sum of all observations.
  public private(set) var sum = 0.0

  /// Takes the upper bounds, in seconds for durations. They are sorted; doubles and non-finite ones are dropped.
  public init(bounds: [Double]) {
    self.bounds = Set(bounds.filter(\.isFinite)).sorted()
    counts = Array(repeating: 0, count: self.bounds.count + 1)
  }

  /// Takes what was counted elsewhere: a count for each bucket, the `+Inf` bucket last; missing ones are 0.
  init(bounds: [Double], counts: [UInt64], sum: Double) {
    self.init(bounds: bounds)
    for (bucket, count) in zip(self.counts.indices, counts) { self.counts[bucket] = count }
    self.sum = sum
  }

  /// Counts one value; a bound belongs to the bucket below it. NaN is ignored, it would spoil the sum for good.
  public mutating func observe(_ value: Double) {
    guard !value.isNaN else { return }
    var bucket = 0
    while bucket < bounds.count, value > bounds[bucket] { bucket += 1 }
    counts[bucket] &+= 1
    sum += value
  }

  /// Adds what `other` has counted; false, and nothing done, if its bounds differ.
  @discardableResult public mutating func merge(_ other: Histogram) -> Bool {
    guard bounds == other.bounds else { return false }
    for bucket in counts.indices { counts[bucket] &+= other.counts[bucket] }
    sum += other.sum
    return true
  }

  /// How many values were counted.
  public var count: UInt64 { counts.reduce(0, &+) }

  /// For each bound, and last for `+Inf`, how many values do not exceed it.
  public var cumulative: [UInt64] {
    var total: UInt64 = 0
    return counts.map { count in
      total &+= count
      return total
    }
  }
}
