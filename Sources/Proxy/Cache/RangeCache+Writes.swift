internal import Reactor

/// Writes through this proxy, on this core or another one.
extension RangeCache {
  /// Keys were written, the store then being at `revision`; nil if nobody knows whether they were.
  func wrote(_ keys: SpanView, _ revision: Int64?) {
    sequence += 1
    log.add(keys, revision, sequence)
    spans.collect(keys, into: &touched)
    // An entry that a keeper vouches for beyond the write has seen it, or it has changed nothing.
    for span in touched {
      var next = span.firstEntry
      while next != .none {
        let handle = next
        next = .none
        let isOlder = entries.edit(handle) { entry -> Bool in
          next = entry.nextOfSpan
          guard entry.fixed == 0 else { return false }
          return revision.map { right(entry) < $0 } ?? true
        }
        if isOlder == true { drop(handle, .byWrite) }
      }
    }
    touched.removeAll(keepingCapacity: true)
  }

  /// Nobody knows which keys were written: nothing is shown that is not right up to there.
  func wroteSomething(_ revision: Int64?) {
    sequence += 1
    log.addEverything(revision, sequence)
    if let revision {
      floor = max(floor, revision)
      return
    }
    var handles: [Handle] = []
    entries.forEach { handle, entry in
      if entry.fixed == 0 { handles.append(handle) }
    }
    for handle in handles { drop(handle, .byWrite) }
  }

  /// What a call has written, as `WrittenKeys` lays it down.
  func wrote(_ list: UnsafeRawBufferPointer, _ revision: Int64?) {
    unsafe WrittenKeys.forEach(list) { item in
      switch item {
      case .span(let keys): wrote(keys, revision)
      case .everything: wroteSomething(revision)
      }
    }
  }

  /// Revisions before this one are gone: reads of them go to etcd, which says so.
  func compact(to revision: Int64) { compacted = max(compacted, revision) }
}
