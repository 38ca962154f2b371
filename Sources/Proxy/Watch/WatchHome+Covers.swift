internal import Reactor

/// One watch upstream for all live groups of a principal under a prefix: the prefix's own group is the cover, the others are
/// its lanes. A lane begins and goes on where its cover is, so covers and lanes share a home.
extension WatchHome {
  /// The cover of a group that is about to be made, which is made if it is not there.
  func cover(for subscription: WatchSubscription) -> HomeGroup? {
    let key = subscription.key
    guard key.isLive, let range = core.shared.covers.cover(of: key.range), range != key.range else {
      return nil
    }
    let coverKey = GroupKey(range: range, principal: key.principal, requiresLeader: key.requiresLeader)
    if let until = uncovered[coverKey], core.now < until { return nil }
    if let cover = groups[coverKey] { return cover }
    let cover = make(
      WatchSubscription(
        key: coverKey, ticket: 0, token: subscription.token, wantsPrevious: subscription.wantsPrevious,
        start: subscription.start))
    cover.learn(subscription.token)
    place(cover)
    return cover
  }

  /// Makes a new group a lane. What the cover still has from `start` on is its past.
  func join(_ group: HomeGroup, _ cover: HomeGroup, start: Int64) {
    let lane = enlist(group, cover)
    if group.wantsPrevious { addPrevious(cover) }
    guard cover.history.from != 0, start >= cover.history.from, start < cover.next else { return }
    group.history.restart(from: start)
    for number in cover.history.find(start)..<cover.history.end {
      if let part = lane.part(of: cover.history[number]) { keep(part, group) }
    }
  }

  /// Makes the group a lane.
  func enlist(_ group: HomeGroup, _ cover: HomeGroup) -> WatchLane {
    let lane = WatchLane(group, of: cover, core.shared.covers.span(of: group.key.range))
    uncount(group)
    group.lane = lane
    if cover.cover == nil {
      cover.cover = WatchCover(seed: .random(in: .min ... .max), now: core.now)
    }
    cover.cover?.insert(lane)
    return lane
  }

  func keep(_ block: WatchBlock, _ group: HomeGroup) {
    group.history.append(block, now: core.now, most: core.historyLimit)
  }

  func leave(_ lane: WatchLane) {
    lane.group.lane = nil
    lane.cover.cover?.remove(lane)
    guard lane.cover.cover?.isEmpty == true else { return }
    lane.cover.cover = nil
    noteIdle(lane.cover)
  }

  // MARK: What a cover's watch brings

  func distribute(_ block: WatchBlock, of cover: HomeGroup) {
    let unwanted = cover.cover?.distribute(block) { group, part in
      keep(part, group)
      tell(.block, group, part)
    }
    guard let unwanted, cover.subscriberCount == 0 else { return }
    cover.unwanted += unwanted
    cover.wanted += block.eventCount - unwanted
    core.shared.counters.add(.watchUnwanted, UInt64(unwanted), core: core.index)
  }

  func lanesStand(of cover: HomeGroup) {
    guard let lanes = cover.cover?.lanes else { return }
    for lane in lanes where lane.group.history.from == 0 { lane.group.keepUp(with: cover) }
    tellAll(.lanesLive, cover, cover.state)
  }

  func lanesProgressed(of cover: HomeGroup) {
    guard cover.cover != nil, cover.history.from != 0 else { return }
    cover.cover?.progressAt = core.now
    var header = cover.header
    header.revision = cover.next - 1
    let state = cover.state
    tellAll(
      .lanesProgress, cover,
      WatchState(header: header, next: state.next, from: state.from, previousFrom: state.previousFrom))
  }

  /// etcd tells a watch how far it is when it has had no events for a while. A cover has events while its lanes have none.
  func remindLanes(of cover: HomeGroup) {
    guard let told = cover.cover?.progressAt, core.now - told >= Limits.coverProgress else { return }
    lanesProgressed(of: cover)
  }

  // MARK: The end of a cover

  /// What etcd says of a position or of a leader is true of the lanes as well, for it would say it to watches of their own.
  /// For everything else they get such watches, and each its own verdict.
  func endLanes(of cover: HomeGroup, _ reason: WatchEnd.Reason) {
    guard let lanes = cover.cover?.lanes else { return }
    cover.cover = nil
    let isForAll =
      switch reason {
      case .canceled(let compactRevision, _, _, _): compactRevision > 0
      case .status(let code, _): code == .unavailable
      case .refused, .replaced: false
      }
    if !isForAll {
      uncovered[cover.key] = core.now + Limits.coverPause
      core.log.info(
        "a covering watch has ended; the watches under it go on by themselves",
        .string("prefix", String(decoding: cover.key.range.key, as: UTF8.self)),
        .int("watches", Int64(lanes.count)))
    }
    for lane in lanes {
      guard isForAll else {
        release(lane, of: cover)
        continue
      }
      lane.group.lane = nil
      lane.group.keepUp(with: cover)
      end(lane.group, reason)
    }
  }
}
