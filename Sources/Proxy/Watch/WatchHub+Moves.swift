internal import Reactor

/// How a watcher goes from one group to another: to one that brings its past, back to the live one, or to one of its own.
extension WatchHub {
  /// The watcher wants something that its group's history does not hold: another group brings it.
  func detour(_ handle: Handle) {
    let wish: (group: LocalGroup, floor: Int64, previous: Bool, stream: WatchStream)? =
      watchers.edit(handle) { watcher in
        (unsafe watcher.group, watcher.floor, watcher.flags.contains(.wantsPrevious), unsafe watcher.stream)
      }
    guard let wish else { return }
    core.shared.counters.add(.watchCatchUps, core: core.index)
    guard wish.group.key.isShared else { return goAlone(handle) }
    var liveKey = wish.group.key
    liveKey.kind = .live
    let live = find(liveKey, wish.previous, wish.stream.credentials.token, start: 0)
    if live.state != nil, live !== wish.group, wish.floor >= live.reach(wantsPrevious: wish.previous) {
      return arrive(handle, at: live)
    }
    let open = live.catchUps.last {
      $0.end == nil && $0.state != nil && wish.floor >= $0.history.from
        && (!wish.previous || $0.askedPrevious)
    }
    if let open { return arrive(handle, at: open) }
    var key = liveKey
    key.kind = .catchUp(nextNumber(), from: wish.floor, wantsPrevious: wish.previous)
    let group = find(key, wish.previous, wish.stream.credentials.token, start: 0)
    group.target = live
    live.catchUps.removeAll { $0.end != nil || $0.watchers.isEmpty }
    live.catchUps.append(group)
    arrive(handle, at: group)
  }

  func arrive(_ handle: Handle, at group: LocalGroup) {
    move(handle, to: group)
    _ = watchers.edit(handle) { watcher in
      watcher.flags.subtract([.isSettled, .isMoving])
      watcher.cursor = group.history.base
      if group.state != nil, !watcher.flags.contains(.isUnchecked) { settle(&watcher, handle, group) }
    }
    makeReady(handle)
  }

  /// A group that brings the past has met the live one: its watchers go over as they come to its end.
  func handOver(_ group: LocalGroup) {
    if group.key.isLive {
      for catchUp in group.catchUps where catchUp.end == nil { handOver(catchUp) }
      return
    }
    guard let live = group.target, live.end == nil, live.state != nil, group.end == nil else { return }
    guard group.state != nil, group.next >= live.reach(wantsPrevious: group.askedPrevious) else { return }
    // No more is needed from etcd. Who is behind in what has come goes over when it is through.
    replace(group)
  }

  /// The group has ended under the watcher, which goes on elsewhere from where it is.
  func rejoin(_ handle: Handle) {
    let wish: (group: LocalGroup, previous: Bool, stream: WatchStream)? = watchers.edit(handle) { watcher in
      let group = unsafe watcher.group
      if case .replaced? = group.end?.reason, watcher.flags.contains(.isCreated) {
        watcher.floor = max(watcher.floor, group.next)
      }
      return unsafe (group, watcher.flags.contains(.wantsPrevious), watcher.stream)
    }
    guard let (group, wantsPrevious, stream) = wish else { return }
    var key = group.key
    key.kind = .live
    let next = find(key, wantsPrevious, stream.credentials.token, start: 0)
    // The tokens of others were refused: this one has to show its own.
    if case .refused? = group.end?.reason { check(handle, stream, next) }
    arrive(handle, at: next)
  }

  /// The watcher gets a watch of its own, under its client's own token.
  func goAlone(_ handle: Handle) {
    let wish: (key: GroupKey, floor: Int64, previous: Bool, stream: WatchStream)? =
      watchers.edit(handle) { watcher in
        unsafe (
          watcher.group.key, watcher.flags.contains(.isCreated) ? watcher.floor : watcher.start,
          watcher.flags.contains(.wantsPrevious), watcher.stream
        )
      }
    guard let wish else { return }
    var key = wish.key
    key.kind = .own(
      nextNumber(), from: wish.floor, wantsPrevious: wish.previous)
    arrive(handle, at: find(key, wish.previous, wish.stream.credentials.token, start: wish.floor))
  }
}
