internal import Reactor

/// Prefixes that are covered of the proxy's own accord: once a core is home to enough ranges under one, until that brings too much
/// that nobody watches. Each home core has a cover of its own, so ranges stay where they are.
extension WatchHome {
  /// The group's range is one more that has a watch of its own, or one less.
  func count(_ group: HomeGroup) {
    guard !group.isCounted, group.lane == nil, group.key.isLive else { return }
    group.isCounted = true
    choice.add(group.key)
  }

  func uncount(_ group: HomeGroup) {
    guard group.isCounted else { return }
    group.isCounted = false
    choice.remove(group.key)
  }

  /// A standing cover of this kind, for a group that is about to be made or to change over.
  func automaticCover(of key: GroupKey) -> HomeGroup? {
    guard !automatic.isEmpty else { return nil }
    for cover in choice.covers(of: key) where automatic.contains(cover) {
      if let group = groups[cover], group.history.from != 0, group.lane == nil { return group }
    }
    return nil
  }

  /// Looks for prefixes to cover, and after those that are covered.
  func tickAutomatic() {
    guard choice.least > 0 else { return }
    for key in automatic { if let cover = groups[key] { judge(cover) } }
    // One after the other: what the first takes over counts no more for those above it.
    let isBusy = automatic.contains {
      choice.count($0) >= choice.least && core.now - coveredAt < Limits.coverSettling
    }
    if !isBusy, let key = choice.next({ !automatic.contains($0) && uncovered[$0] == nil }) { cover(key) }
    for key in automatic where choice.count(key) > 0 {
      guard let feed = groups[key]?.feed, core.shared.hasSoundProgress.load(ordering: .relaxed) else {
        continue
      }
      feed.locate()
    }
  }

  private func cover(_ key: GroupKey) {
    guard let member = groups.values.first(where: { $0.isCounted && choice.covers(of: $0.key).contains(key) })
    else {
      return
    }
    automatic.insert(key)
    coveredAt = core.now
    core.log.info(
      "many watches share a prefix; etcd is asked for one watch that serves them all",
      .string("prefix", String(decoding: key.range.key, as: UTF8.self)),
      .int("watches", Int64(choice.count(key))))
    guard groups[key] == nil else { return }
    let cover = make(
      WatchSubscription(key: key, ticket: 0, token: member.tokens.last ?? [], wantsPrevious: false, start: 0))
    for token in member.tokens { cover.learn(token) }
    place(cover)
    // Where groups cannot change over, new ones may still come.
    cover.grace = Limits.coverRest
    noteIdle(cover)
  }

  /// A cover that brings much more than is wanted falls apart.
  private func judge(_ cover: HomeGroup) {
    let span = core.now - cover.judgedAt
    guard span >= .seconds(1) else { return }
    let (wanted, unwanted) = (cover.wanted, cover.unwanted)
    (cover.wanted, cover.unwanted, cover.judgedAt) = (0, 0, core.now)
    let seconds = max(1, Int(span.nanoseconds / 1_000_000_000))
    guard unwanted / seconds > Limits.coverUnwanted, unwanted > Limits.coverUnwantedShare * wanted else {
      return
    }
    core.log.info(
      "a covering watch brings too much that nobody watches; the watches under it go on by themselves",
      .string("prefix", String(decoding: cover.key.range.key, as: UTF8.self)),
      .int("unwanted", Int64(unwanted)),
      .int("wanted", Int64(wanted)))
    automatic.remove(cover.key)
    uncovered[cover.key] = core.now + Limits.coverPause
    let lanes = cover.cover?.lanes ?? []
    cover.cover = nil
    for lane in lanes { release(lane, of: cover) }
    if !cover.isWanted { forget(cover) }
  }

  /// etcd has ended or refused a cover: its prefix is left alone for a while.
  func endAutomatic(_ cover: HomeGroup) {
    guard automatic.remove(cover.key) != nil else { return }
    uncovered[cover.key] = core.now + Limits.coverPause
    core.log.info(
      "etcd has ended a watch that served many; those under it have watches of their own",
      .string("prefix", String(decoding: cover.key.range.key, as: UTF8.self)))
  }

  // MARK: Changing over

  /// The stream has said that its watches up to number `last` have brought everything up to a revision. Groups and their cover are at
  /// the same place then, and the groups can go on as lanes.
  func positioned(_ feed: WatchFeed, _ header: ResponseHeader, last: Int64) {
    guard !automatic.isEmpty else { return }
    var left = Limits.coverMovesATurn
    let covers = automatic.compactMap { groups[$0] }.filter { $0.feed === feed && $0.upstreamID <= last }
    for cover in covers where cover.phase == .live && cover.fragments.isEmpty && choice.count(cover.key) > 0 {
      cover.advance(to: header.revision)
      let members = feed.standing(upTo: last).filter {
        $0.isCounted && $0.cover == nil && automaticCover(of: $0.key) === cover
      }
      if members.contains(where: \.wantsPrevious), !cover.wantsPrevious {
        // Those events come when the watch has been made again.
        addPrevious(cover)
        continue
      }
      for group in members.prefix(left) {
        group.advance(to: header.revision)
        changeOver(group, to: cover)
        left -= 1
      }
    }
    if left <= 0 { core.scheduleWatchTick(after: .milliseconds(50)) }
  }

  private func changeOver(_ group: HomeGroup, to cover: HomeGroup) {
    // An event that has come for the group and not yet for the cover would come twice.
    guard group.next <= cover.next, let feed = group.feed else { return }
    let lane = enlist(group, cover)
    feed.remove(group, isComingBack: true)
    for number in cover.history.find(group.next)..<cover.history.end {
      guard let part = lane.part(of: cover.history[number]) else { continue }
      guard let fresh = part.first < group.next ? part.cut(from: group.next) : part else { continue }
      keep(fresh, group)
      tell(.block, group, fresh)
    }
    group.phase = .live
    group.keepUp(with: cover)
    tell(.covered, group, WatchLaneNote(cover: cover.id))
    tell(.live, group, group.state)
  }

  /// The lane goes on with a watch of its own from where its cover is.
  func release(_ lane: WatchLane, of cover: HomeGroup) {
    let group = lane.group
    group.lane = nil
    group.keepUp(with: cover)
    group.wantsPrevious = cover.wantsPrevious
    tell(.covered, group, WatchLaneNote(cover: 0))
    count(group)
    place(group)
  }
}
