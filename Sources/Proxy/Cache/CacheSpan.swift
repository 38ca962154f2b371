internal import Reactor

/// The keys that entries of one principal are about, and what is known of them.
final class CacheSpan: SpanNode {
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
  var links: SpanLinks<CacheSpan>

  init(_ keys: KeySpan, _ principal: Principal) {
    self.keys = keys
    self.principal = principal
    links = SpanLinks(keys)
  }

  var rank: UInt32 { principal.number }
}

extension SpanTree<CacheSpan> {
  func find(_ keys: SpanView, _ principal: Principal) -> CacheSpan? { find(keys, rank: principal.number) }

  /// Adds keys that are not in the tree.
  mutating func insert(_ keys: SpanView, _ principal: Principal) -> CacheSpan {
    let span = CacheSpan(KeySpan(keys), principal)
    insert(span)
    return span
  }
}
