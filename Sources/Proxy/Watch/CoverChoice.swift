/// Which prefixes may be covered of the proxy's own accord, and how many ranges each has.
///
/// A prefix is what stands before a slash, at most so many levels up; for keys without a slash what stands before their last
/// separator, or before the digits at their end.
struct CoverChoice {
  /// From so many ranges on a prefix is covered; 0 is never.
  let least: Int
  /// Bytes in front of all keys that no prefix may be shorter than.
  private let namespace: Int
  private var counts: [GroupKey: Int] = [:]

  private static let levels = 4
  private static let separators: [UInt8] = Array("._:-".utf8)
  private static let digits = UInt8(ascii: "0")...UInt8(ascii: "9")

  init(from least: Int, namespace: Int) {
    self.least = least
    self.namespace = namespace
  }

  mutating func add(_ key: GroupKey) { for cover in covers(of: key) { counts[cover, default: 0] += 1 } }

  mutating func remove(_ key: GroupKey) {
    for cover in covers(of: key) {
      guard let count = counts[cover] else { continue }
      counts[cover] = count > 1 ? count - 1 : nil
    }
  }

  /// Ranges under a prefix that have watches of their own.
  func count(_ cover: GroupKey) -> Int { counts[cover] ?? 0 }

  /// The longest prefix with enough ranges, of those that are allowed.
  func next(_ isAllowed: (GroupKey) -> Bool) -> GroupKey? {
    guard least > 0 else { return nil }
    var longest: GroupKey?
    for (key, count) in counts where count >= least && isAllowed(key) {
      if key.range.key.count > longest?.range.key.count ?? -1 { longest = key }
    }
    return longest
  }

  /// The groups that could cover another one, the longest prefix first.
  func covers(of key: GroupKey) -> [GroupKey] {
    guard least > 0, key.isLive else { return [] }
    return prefixes(of: key.range.key).lazy
      .map { WatchRange(key: $0, end: RangeRequest.end(ofPrefix: $0)) }
      .filter { $0 != key.range && $0.holds(key.range) }
      .map { GroupKey(range: $0, principal: key.principal, requiresLeader: key.requiresLeader) }
  }

  private func prefixes(of key: [UInt8]) -> [[UInt8]] {
    var found: [[UInt8]] = []
    let slash = UInt8(ascii: "/")
    var end = key.count
    while found.count < Self.levels, let place = key[namespace..<max(end, namespace)].lastIndex(of: slash) {
      if place + 1 < key.count { found.append(Array(key[...place])) }
      end = place
    }
    if end < key.count || found.count > 0 { return found }
    let own = key[namespace...]
    if let place = own.dropLast().lastIndex(where: { Self.separators.contains($0) }) {
      return [Array(key[...place])]
    }
    guard let place = own.lastIndex(where: { !Self.digits.contains($0) }), place + 1 < key.count else {
      return []
    }
    return [Array(key[...place])]
  }
}
