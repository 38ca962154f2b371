internal import Reactor

/// The keys of a watch, in the form that etcd brings a request into (v3rpc/watch.go: recvLoop).
struct WatchRange: Hashable, Sendable {
  /// Never empty.
  let key: [UInt8]
  /// Empty for the key alone, `00` for all keys from `key` on.
  let end: [UInt8]

  init(key: [UInt8], end: [UInt8]) {
    self.key = key.isEmpty ? [0] : key
    self.end = end
  }

  /// etcd refuses a range that ends before it begins.
  var isEmpty: Bool { !end.isEmpty && end != [0] && !key.lexicographicallyPrecedes(end) }

  /// Whether a key lies in it.
  func contains(_ other: UnsafeRawBufferPointer) -> Bool {
    if end.isEmpty { return unsafe key.elementsEqual(other) }
    guard unsafe !other.lexicographicallyPrecedes(key) else { return false }
    if end == [0] { return true }
    return unsafe other.lexicographicallyPrecedes(end)
  }

  /// Whether all keys of another range lie in it; it is not a single key.
  func holds(_ other: WatchRange) -> Bool {
    guard unsafe other.key.withUnsafeBytes({ unsafe contains($0) }) else { return false }
    if other.end.isEmpty || end == [0] { return true }
    return other.end != [0] && !end.lexicographicallyPrecedes(other.end)
  }

  /// Where among `cores` its groups live; the same on all cores.
  func home(_ cores: Int) -> Int {
    let hash = unsafe end.withUnsafeBytes { unsafe ByteHash.of($0, ByteHash.of(key)) }
    return Int(hash % UInt64(cores))
  }
}

/// What makes watchers one group: the same keys for the same principal with the same wish for a leader.
struct GroupKey: Hashable, Sendable {
  enum Kind: Hashable, Sendable {
    /// Follows what happens.
    case live
    /// Brings what has happened since a revision that no history reaches back to, until it meets the live group.
    /// It has moved on when the next one needs the same, so each has a number of its own.
    case catchUp(UInt64, from: Int64, wantsPrevious: Bool)
    /// One watcher's own: its request goes to etcd as it is, and etcd's verdict comes back.
    case own(UInt64, from: Int64, wantsPrevious: Bool)
  }

  let range: WatchRange
  let principal: Principal
  let requiresLeader: Bool
  var kind = Kind.live

  var isLive: Bool { kind == .live }

  /// Others may join it.
  var isShared: Bool {
    if case .own = kind { return false }
    return true
  }
}
