/// What has a place in a `SpanTree` by its keys. It must not be in two.
protocol SpanNode: AnyObject {
  var keys: KeySpan { get }
  /// Sets those with the same keys apart.
  var rank: UInt32 { get }
  var links: SpanLinks<Self> { get set }
}

/// Where a node stands in its tree.
struct SpanLinks<Node: SpanNode> {
  fileprivate var left: Node?
  fileprivate var right: Node?
  fileprivate var weight: UInt64 = 0
  /// Of those below, this one included, the keys that reach farthest.
  fileprivate var farthest: KeySpan

  init(_ keys: KeySpan) { farthest = keys }
}

extension SpanNode {
  fileprivate func measure() {
    var farthest = keys
    if let left = links.left, farthest.endsBefore(left.links.farthest) { farthest = left.links.farthest }
    if let right = links.right, farthest.endsBefore(right.links.farthest) { farthest = right.links.farthest }
    links.farthest = farthest
  }

  fileprivate func compare(_ other: SpanView, _ rank: UInt32) -> Int {
    let order = keys.compare(other)
    return order != 0 ? order : Int(self.rank) - Int(rank)
  }
}

/// Intervals of keys, to find those that a key or a range touches: a tree by their starts that is kept even by chance
/// (a treap), in which every node knows how far those below it reach.
///
/// The recursion is as deep as the tree, some twice the logarithm of its size: no client has a say in the weights.
struct SpanTree<Node: SpanNode> {
  private var root: Node?
  private var random: SplitMix
  private(set) var count = 0

  init(seed: UInt64) { random = SplitMix(seed: seed) }

  func find(_ keys: SpanView, rank: UInt32) -> Node? {
    var node = root
    while let current = node {
      let order = current.compare(keys, rank)
      if order == 0 { return current }
      node = order > 0 ? current.links.left : current.links.right
    }
    return nil
  }

  /// Adds a node whose keys and rank are not in the tree.
  mutating func insert(_ node: Node) {
    node.links.weight = random.next()
    root = insert(node, under: root)
    count += 1
  }

  mutating func remove(_ node: Node) {
    root = remove(node, under: root)
    node.links = SpanLinks(node.keys)
    count -= 1
  }

  /// Adds all that have a key in common with `keys` to `found`.
  func collect(_ keys: SpanView, into found: inout [Node]) { collect(keys, under: root, into: &found) }

  // MARK: Below a node

  private func collect(_ keys: SpanView, under node: Node?, into found: inout [Node]) {
    guard let node, node.links.farthest.withRaw({ unsafe $0.reaches(keys.start) }) else { return }
    collect(keys, under: node.links.left, into: &found)
    guard node.keys.withRaw({ unsafe keys.reaches($0.start) }) else { return }
    if node.keys.overlaps(keys) { found.append(node) }
    collect(keys, under: node.links.right, into: &found)
  }

  private func isLess(_ one: Node, _ other: Node) -> Bool {
    other.keys.withRaw { one.compare($0, other.rank) < 0 }
  }

  private func insert(_ span: Node, under node: Node?) -> Node {
    guard let node else { return span }
    if span.links.weight > node.links.weight {
      (span.links.left, span.links.right) = split(node, at: span)
      span.measure()
      return span
    }
    if isLess(span, node) {
      node.links.left = insert(span, under: node.links.left)
    } else {
      node.links.right = insert(span, under: node.links.right)
    }
    node.measure()
    return node
  }

  private func split(_ node: Node?, at span: Node) -> (Node?, Node?) {
    guard let node else { return (nil, nil) }
    defer { node.measure() }
    if isLess(node, span) {
      let (inner, outer) = split(node.links.right, at: span)
      node.links.right = inner
      return (node, outer)
    }
    let (outer, inner) = split(node.links.left, at: span)
    node.links.left = inner
    return (outer, node)
  }

  private func remove(_ span: Node, under node: Node?) -> Node? {
    guard let node else { return nil }
    if node === span { return merge(node.links.left, node.links.right) }
    if isLess(span, node) {
      node.links.left = remove(span, under: node.links.left)
    } else {
      node.links.right = remove(span, under: node.links.right)
    }
    node.measure()
    return node
  }

  private func merge(_ one: Node?, _ other: Node?) -> Node? {
    guard let one else { return other }
    guard let other else { return one }
    if one.links.weight > other.links.weight {
      one.links.right = merge(one.links.right, other)
      one.measure()
      return one
    }
    other.links.left = merge(one, other.links.left)
    other.measure()
    return other
  }
}
