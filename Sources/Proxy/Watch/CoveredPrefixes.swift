/// The prefixes of `--watch-cover`, with the namespace in front: as etcd knows them.
struct CoveredPrefixes: Sendable {
  /// The longest first.
  private let ranges: [WatchRange]
  private let namespace: [UInt8]

  init(_ prefixes: [String], namespace: [UInt8]) {
    self.namespace = namespace
    ranges = prefixes.map { prefix in
      let key = namespace + Array(prefix.utf8)
      return WatchRange(key: key, end: RangeRequest.end(ofPrefix: key))
    }.sorted { $0.key.count > $1.key.count }
  }

  /// The longest one that holds a range.
  func cover(of range: WatchRange) -> WatchRange? { ranges.first { $0.holds(range) } }

  /// Where among `cores` the groups of a range live; the same on all cores, and for all ranges of a prefix.
  func home(of range: WatchRange, among cores: Int) -> Int { (cover(of: range) ?? range).home(cores) }

  /// The keys of a range as they stand in blocks, which have them as clients know them.
  func span(of range: WatchRange) -> KeySpan {
    let start = Array(range.key.dropFirst(namespace.count))
    if range.end.isEmpty { return KeySpan(.single, start, []) }
    // An end behind the namespace is the end of all keys that clients know.
    guard range.end != [0], range.end.starts(with: namespace) else { return KeySpan(.open, start, []) }
    return KeySpan(.bounded, start, Array(range.end.dropFirst(namespace.count)))
  }
}
