/// The order in which new connections go to endpoints: for each priority class a fixed round of slots, built once
/// when the set of endpoints changes and then only walked.
///
/// A round holds every endpoint in proportion to its weight and spreads its slots evenly (smooth weighted round
/// robin), so there is nothing to draw and the shares are exact after every full round. This replaces etcd's `pick`
/// (server/proxy/tcpproxy/userspace.go), which never chooses the second of two endpoints of weight 1 and ignores
/// priorities where all weights are 0.
public enum Schedule {
  /// An endpoint as its SRV record describes it; static endpoints have priority 0 and weight 0.
  public struct Entry: Hashable, Sendable {
    /// The caller's own number for the endpoint.
    public let index: Int
    /// RFC 2782: the numerically lowest is tried first.
    public let priority: UInt16
    /// RFC 2782: the share among those of the same priority.
    public let weight: UInt16

    /// Describes one endpoint.
    public init(index: Int, priority: UInt16 = 0, weight: UInt16 = 0) {
      self.index = index
      self.priority = priority
      self.weight = weight
    }
  }

  /// The endpoints of one priority.
  public struct PriorityClass: Hashable, Sendable {
    /// The priority they share.
    public let priority: UInt16
    /// The round, as indices of entries; never empty.
    public let slots: [Int]
  }

  /// The most slots a round has. With more endpoints than this in a class, each has exactly one slot.
  public static let mostSlots = 1024

  /// Builds the rounds, best priority first. The result depends on nothing but the list and its order.
  ///
  /// Equal weights give the list order. Endpoints of weight 0 beside weighted ones share 1 % of the class (at least
  /// one slot each), the "very small chance" that RFC 2782 asks for and etcd grants. Shares are exact where the
  /// weights, reduced by their common divisor, fit into `mostSlots`, and rounded to the nearest slot otherwise.
  public static func build(_ entries: [Entry]) -> [PriorityClass] {
    Set(entries.map(\.priority)).sorted().map { priority in
      let members = entries.filter { $0.priority == priority }
      let counts = slotCounts(weights: members.map { UInt64($0.weight) })
      return PriorityClass(priority: priority, slots: spread(counts).map { members[$0].index })
    }
  }

  // MARK: How many slots each

  private static func slotCounts(weights: [UInt64]) -> [Int] {
    let shares = shares(weights)
    let divisor = shares.reduce(0, greatestCommonDivisor)
    let reduced = shares.map { $0 / divisor }
    guard reduced.reduce(0, +) > UInt64(mostSlots) else { return reduced.map { Int($0) } }
    guard weights.count < mostSlots else { return weights.map { _ in 1 } }
    return apportion(reduced)
  }

  /// Weights without zeros: all equal if there is nothing else, else the zeros together one part in a hundred.
  private static func shares(_ weights: [UInt64]) -> [UInt64] {
    let total = weights.reduce(0, +)
    let zeros = UInt64(weights.count { $0 == 0 })
    guard total > 0 else { return weights.map { _ in 1 } }
    guard zeros > 0 else { return weights }
    return weights.map { $0 == 0 ? total : $0 * 99 * zeros }
  }

  /// Divides `mostSlots` by largest remainder, after giving one slot to everybody whose share is less than one.
  private static func apportion(_ shares: [UInt64]) -> [Int] {
    var counts = [Int](repeating: 0, count: shares.count)
    var slots = UInt64(mostSlots)
    var total = shares.reduce(0, +)
    // Each small one that takes a whole slot leaves less for the others, which may make another one small.
    while let small = shares.indices.first(where: { counts[$0] == 0 && shares[$0] * slots < total }) {
      counts[small] = 1
      slots -= 1
      total -= shares[small]
    }
    let large = shares.indices.filter { counts[$0] == 0 }
    for index in large { counts[index] = Int(shares[index] * slots / total) }
    let left = mostSlots - counts.reduce(0, +)
    let byRemainder = large.sorted {
      let (a, b) = (shares[$0] * slots % total, shares[$1] * slots % total)
      return a == b ? $0 < $1 : a > b
    }
    for index in byRemainder.prefix(left) { counts[index] += 1 }
    return counts
  }

  private static func greatestCommonDivisor(_ a: UInt64, _ b: UInt64) -> UInt64 {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return a
  }

  // MARK: In which order

  /// Smooth weighted round robin: in each step all gain their count, and the one with most pays the total.
  private static func spread(_ counts: [Int]) -> [Int] {
    let total = counts.reduce(0, +)
    guard total > counts.count else { return Array(counts.indices) }
    var credit = [Int](repeating: 0, count: counts.count)
    return (0..<total).map { _ in
      var best = 0
      for index in counts.indices {
        credit[index] += counts[index]
        if credit[index] > credit[best] { best = index }
      }
      credit[best] -= total
      return best
    }
  }
}
