internal import Reactor

/// What the homes have told.
extension WatchHub {
  func applyNotices() {
    var next = 0
    while next < notices.count {
      let (notice, object, home) = notices[next]
      next += 1
      apply(notice, object, home)
    }
    notices.removeAll(keepingCapacity: true)
  }

  private func apply(_ notice: WatchNotice, _ object: AnyObject?, _ home: Int) {
    guard let kind = WatchNotice.Kind(rawValue: notice.kind) else { return }
    switch kind {
    case .joined: if let snapshot = object as? WatchSnapshot { joined(snapshot, notice.group, home) }
    case .answer: answered(notice.group, object as? WatchState)
    case .lanesLive: for group in lanes(of: notice.group, home) { apply(.live, object, to: group) }
    case .lanesProgress:
      for group in lanes(of: notice.group, home) where group.wantsProgress {
        apply(.progress, object, to: group)
      }
    default: if let group = byID[home][notice.group] { apply(kind, object, to: group) }
    }
  }

  private func apply(_ kind: WatchNotice.Kind, _ object: AnyObject?, to group: LocalGroup) {
    switch kind {
    case .block:
      guard let block = object as? WatchBlock else { return }
      group.next = max(group.next, block.last + 1)
      group.header = block.header
      group.append(block, now: core.now, most: core.historyLimit)
      markDirty(group)
    case .live, .progress:
      guard let state = object as? WatchState else { return }
      let isFirst = group.state == nil
      group.stands(state, afterQuestion: lastQuestion)
      if isFirst {
        group.permitted(core.now, core.shared)
        if group.key.principal == .nobody { nobodyAccepted() }
      }
      if kind == .progress { group.progressRevision = state.header.revision }
      markDirty(group)
      if kind == .progress { oweProgress(group) }
    case .ended:
      guard let end = object as? WatchEnd else { return }
      group.end = end
      // Nobody finds it any more; it stays for those that are behind.
      forget(group)
      ended.append(group)
      markDirty(group)
    case .covered: if let note = object as? WatchLaneNote { group.cover = note.cover }
    case .joined, .answer, .lanesLive, .lanesProgress: break
    }
  }

  private func lanes(of cover: UInt32, _ home: Int) -> [LocalGroup] {
    groups.values.filter { $0.cover == cover && $0.home == home }
  }

  /// The home has taken us in.
  private func joined(_ snapshot: WatchSnapshot, _ id: UInt32, _ home: Int) {
    guard let group = groups[snapshot.key] else {
      // Nobody waits for it any more.
      return ask(home, .unsubscribe(group: id, mayComeBack: false))
    }
    guard group.id == 0, group.ticket == snapshot.ticket else { return }
    group.id = id
    group.cover = snapshot.cover
    byID[home][id] = group
    guard let state = snapshot.state else { return }
    group.stands(state, afterQuestion: lastQuestion)
    for block in snapshot.blocks {
      group.append(block, now: core.now, most: core.historyLimit)
    }
    markDirty(group)
    // It has stood for long, perhaps: that etcd once let its principal in says nothing of now.
    for handle in group.watchers {
      let stream: WatchStream? =
        watchers.edit(handle) { watcher in
          watcher.flags.isDisjoint(with: [.isSettled, .isUnchecked, .isMoving]) ? unsafe watcher.stream : nil
        } ?? nil
      if let stream { check(handle, stream, group) }
    }
  }
}
