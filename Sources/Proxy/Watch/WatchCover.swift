internal import Reactor

/// A live group that has its blocks from a cover.
final class WatchLane: SpanNode {
  /// As they stand in blocks.
  let keys: KeySpan
  unowned let group: HomeGroup
  unowned let cover: HomeGroup
  var links: SpanLinks<WatchLane>
  /// Where its events stand in the block that is being distributed.
  fileprivate var places: [Range<Int>] = []

  init(_ group: HomeGroup, of cover: HomeGroup, _ keys: KeySpan) {
    self.group = group
    self.cover = cover
    self.keys = keys
    links = SpanLinks(keys)
  }

  var rank: UInt32 { group.id }

  /// What of a block is this lane's.
  func part(of block: WatchBlock) -> WatchBlock? {
    var places: [Range<Int>] = []
    unsafe block.forEachEvent { key, place in
      if keys.overlaps(unsafe SpanView(key: key)) { places.append(place) }
    }
    return places.isEmpty ? nil : block.part(places)
  }
}

/// The lanes of a cover: the groups whose ranges lie in its own, and which part of a block is whose.
struct WatchCover {
  private var tree: SpanTree<WatchLane>
  /// When the lanes have last been told how far the cover is.
  var progressAt: Instant
  // Only while a block is distributed.
  private var found: [WatchLane] = []
  private var hit: [WatchLane] = []

  init(seed: UInt64, now: Instant) {
    tree = SpanTree(seed: seed)
    progressAt = now
  }

  var isEmpty: Bool { tree.count == 0 }

  var lanes: [WatchLane] {
    var all: [WatchLane] = []
    KeySpan(.open, [], []).withRaw { tree.collect($0, into: &all) }
    return all
  }

  mutating func insert(_ lane: WatchLane) { tree.insert(lane) }

  mutating func remove(_ lane: WatchLane) { tree.remove(lane) }

  /// Gives each lane its part of a block.
  ///
  /// - Returns: how many events are no lane's.
  mutating func distribute(_ block: WatchBlock, _ give: (HomeGroup, WatchBlock) -> Void) -> Int {
    var unwanted = 0
    unsafe block.forEachEvent { key, place in
      tree.collect(unsafe SpanView(key: key), into: &found)
      if found.isEmpty { unwanted += 1 }
      for lane in found {
        if lane.places.isEmpty { hit.append(lane) }
        lane.places.append(place)
      }
      found.removeAll(keepingCapacity: true)
    }
    for lane in hit {
      if let part = block.part(lane.places) { give(lane.group, part) }
      lane.places.removeAll()
    }
    hit.removeAll(keepingCapacity: true)
    return unwanted
  }
}
