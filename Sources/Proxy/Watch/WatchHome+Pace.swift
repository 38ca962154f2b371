internal import Reactor

/// Watches that bring the past come as fast as their fastest watcher takes them. Nothing of the past is dropped before somebody
/// has had it: a watcher that finds its next block gone would ask for the same past again, and find it gone again.
///
/// A stream to etcd carries many of them, so flow control would hold up all for one. Instead the watch is given back,
/// and made anew from its position when its watcher has caught up with it.
extension WatchHome {
  /// Another block has come of a group that brings the past.
  func pace(_ group: HomeGroup, _ bytes: Int) {
    group.ahead += bytes
    guard group.ahead > Limits.catchUpBytes, let feed = group.feed else { return }
    feed.remove(group, isComingBack: true)
    group.phase = .connecting
    group.isPaused = true
    paused.append(group)
    core.shared.counters.add(.watchPauses, core: core.index)
  }

  /// The group's fastest watcher has been given so much of it.
  func consumed(_ group: HomeGroup, _ bytes: Int) {
    group.ahead -= bytes
    guard group.isPaused, group.ahead <= Limits.catchUpBytes / 2 else { return }
    group.isPaused = false
    paused.removeAll { $0 === group }
    place(group)
  }
}
