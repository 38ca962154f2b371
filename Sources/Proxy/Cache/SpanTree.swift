internal import Reactor

/// The keys that entries of one principal are about, and what is known of them.
final class CacheSpan {
  let keys: KeySpan
  let principal: Principal
  /// The entries, linked to each other.
  var firstEntry = Handle.none
  /// What keeps them right, if they are worth it.
  var keeper: CacheKeeper?
  /// No keeper is asked for before: the last one was refused.
  var keeperPause = Instant(nanoseconds: 0)
  /// The newest revision in which one of the keys has changed, as far as a keeper has told.
  var changed: Int64 = 0
  var isDiscarded = false

  fileprivate var left: CacheSpan?
  fileprivate var right: CacheSpan?
  fileprivate let weight: UInt64
  /// Of those below, this one included, the keys that reach farthest.
  fileprivate var farthest: KeySpan

  init(_ keys: KeySpan, _ principal: Principal, weight: UInt64) {
    self.keys = keys
    self.principal = principal
    self.weight = weight
    farthest = keys
  }

  fileprivate func measure() {
    farthest = keys
    if let left, farthest.endsBefore(left.farthest) { farthest = left.farthest }
    if let right, farthest.endsBefore(right.farthest) { farthest = right.farthest }
  }

  fileprivate func compare(_ other: SpanView, _ principal: Principal) -> Int {
    let order = keys.compare(other)
    return order != 0 ? order : Int(self.principal.number) - Int(principal.number)
  }
}

/// Intervals of keys, to find those that a write touches: a tree by their starts that is kept even by chance (a treap),
/// in which every node knows how far those below it reach.
///
/// The recursion is as deep as the tree, some twice the logarithm of its size: no client has a say in the weights.
struct SpanTree {
  private var root: CacheSpan?
  private var random: SplitMix
  private(set) var count = 0

  init(seed: UInt64) { random = SplitMix(seed: seed) }

  func find(_ keys: SpanView, _ principal: Principal) -> CacheSpan? {
    var node = root
    while let current = node {
      let order = current.compare(keys, principal)
      if order == 0 { return current }
      node = order > 0 ? current.left : current.right
    }
    return nil
  }

  /// Adds keys that are not in the tree.
  mutating func insert(_ keys: SpanView, _ principal: Principal) -> CacheSpan {
    let span = CacheSpan(KeySpan(keys), principal, weight: random.next())
    root = insert(span, under: root)
    count += 1
    return span
  }

  mutating func remove(_ span: CacheSpan) {
    root = remove(span, under: root)
    span.left = nil
    span.right = nil
    count -= 1
  }

  /// Adds all that have a key in common with `keys` to `found`.
  func collect(_ keys: SpanView, into found: inout [CacheSpan]) { collect(keys, under: root, into: &found) }

  // MARK: Below a node

  private func collect(_ keys: SpanView, under node: CacheSpan?, into found: inout [CacheSpan]) {
    guard let node, node.farthest.withRaw({ unsafe $0.reaches(keys.start) }) else { return }
    collect(keys, under: node.left, into: &found)
    guard node.keys.withRaw({ unsafe keys.reaches($0.start) }) else { return }
    if node.keys.overlaps(keys) { found.append(node) }
    collect(keys, under: node.right, into: &found)
  }

  private func isLess(_ one: CacheSpan, _ other: CacheSpan) -> Bool {
    other.keys.withRaw { one.compare($0, other.principal) < 0 }
  }

  private func insert(_ span: CacheSpan, under node: CacheSpan?) -> CacheSpan {
    guard let node else { return span }
    if span.weight > node.weight {
      (span.left, span.right) = split(node, at: span)
      span.measure()
      return span
    }
    if isLess(span, node) {
      node.left = insert(span, under: node.left)
    } else {
      node.right = insert(span, under: node.right)
    }
    node.measure()
    return node
  }

  private func split(_ node: CacheSpan?, at span: CacheSpan) -> (CacheSpan?, CacheSpan?) {
    guard let node else { return (nil, nil) }
    defer { node.measure() }
    if isLess(node, span) {
      let (inner, outer) = split(node.right, at: span)
      node.right = inner
      return (node, outer)
    }
    let (outer, inner) = split(node.left, at: span)
    node.left = inner
    return (outer, node)
  }

  private func remove(_ span: CacheSpan, under node: CacheSpan?) -> CacheSpan? {
    guard let node else { return nil }
    if node === span { return merge(node.left, node.right) }
    if isLess(span, node) {
      node.left = remove(span, under: node.left)
    } else {
      node.right = remove(span, under: node.right)
    }
    node.measure()
    return node
  }

  private func merge(_ one: CacheSpan?, _ other: CacheSpan?) -> CacheSpan? {
    guard let one else { return other }
    guard let other else { return one }
    if one.weight > other.weight {
      one.right = merge(one.right, other)
      one.measure()
      return one
    }
    other.left = merge(one, other.left)
    other.measure()
    return other
  }
}
