internal import Reactor

/// Who waits for heartbeats on one stream to etcd, and which heartbeats it has to carry. Does no I/O.
///
/// A lease has at most one heartbeat under way. Requests for it that come meanwhile gather and share the next one, so every
/// answer follows a heartbeat that was sent after the request.
final class HeartbeatLine {
  /// Whose streams may share one.
  struct Key: Hashable {
    let principal: Principal
    let requiresLeader: Bool
  }

  static let none = UInt32.max

  /// A client's stream.
  struct Member {
    let core: Int
    let stream: Handle
    let token: [UInt8]
    /// etcd has refused the token.
    var isRefused = false
    fileprivate var waiters = HeartbeatLine.none
    fileprivate var before = HeartbeatLine.none
    fileprivate var after = HeartbeatLine.none
  }

  /// A request that has not been answered, in the list of its beat and in that of its member.
  private struct Waiter {
    let member: UInt32
    let beat: UInt32
    let sequence: UInt32
    var before = HeartbeatLine.none
    var after = HeartbeatLine.none
    var memberBefore = HeartbeatLine.none
    var memberAfter = HeartbeatLine.none
  }

  private struct List {
    var first = HeartbeatLine.none
    var last = HeartbeatLine.none
    var isEmpty: Bool { first == HeartbeatLine.none }
  }

  /// A lease for which somebody waits; in the list of those due or of those under way.
  private struct Beat {
    let lease: Int64
    var isFlying = false
    /// Times that a stream ended when it was this one's turn.
    var failures: UInt8 = 0
    /// Those whose heartbeat has been sent, and those who share the next one.
    var sent = List()
    var gathering = List()
    var before = HeartbeatLine.none
    var after = HeartbeatLine.none
  }

  let key: Key
  private var members = IndexPool<Member>()
  private var memberList = List()
  private var waiters = IndexPool<Waiter>()
  private var beats = IndexPool<Beat>()
  private var table: LeaseTable
  private var due = List()
  private var flying = List()

  // For the batcher.
  var upstream: (any HeartbeatUpstream)?
  /// What it was opened with.
  var token: [UInt8] = []
  /// The stream to etcd takes heartbeats.
  var isOpen = false
  var isTouched = false
  var retryAt = Instant(nanoseconds: 0)
  var pause = Instant.Span.zero
  var emptySince: Instant?
  /// When heartbeats began to be under way, or one was answered last.
  var progressed = Instant(nanoseconds: 0)
  /// Tokens that etcd has refused one after the other.
  var refusals = 0

  init(_ key: Key, seed: UInt64) {
    self.key = key
    table = LeaseTable(seed: seed)
  }

  var memberCount: Int { members.count }
  var waiterCount: Int { waiters.count }
  var hasDue: Bool { !due.isEmpty }
  var hasFlying: Bool { !flying.isEmpty }

  subscript(member: UInt32) -> Member { members[member] }

  // MARK: Streams

  func join(core: Int, _ stream: Handle, token: [UInt8]) -> UInt32 {
    let member = members.insert(Member(core: core, stream: stream, token: token))
    members[member].before = memberList.last
    if memberList.isEmpty { memberList.first = member } else { members[memberList.last].after = member }
    memberList.last = member
    return member
  }

  /// Forgets a stream and what it waits for. A heartbeat that nobody waits for any more and that has not been sent
  /// never will be.
  func leave(_ member: UInt32) {
    while members[member].waiters != Self.none {
      let index = members[member].waiters
      let beat = waiters[index].beat
      remove(index)
      if !beats[beat].isFlying, beats[beat].gathering.isEmpty {
        take(beat, outOf: &due)
        drop(beat)
      }
    }
    let (before, after) = (members[member].before, members[member].after)
    if before == Self.none { memberList.first = after } else { members[before].after = after }
    if after == Self.none { memberList.last = before } else { members[after].before = before }
    // The token goes now, and not when the number is used again.
    members[member] = Member(core: 0, stream: .none, token: [])
    members.remove(member)
  }

  /// The members in the order in which they came; `body` may let the one that it is given leave.
  func forEachMember(_ body: (UInt32) -> Void) {
    var member = memberList.first
    while member != Self.none {
      let after = members[member].after
      body(member)
      member = after
    }
  }

  /// The token to open a stream with: of those not refused the one that came last, since it is the one most likely to
  /// be valid.
  var freshToken: [UInt8]? {
    var member = memberList.last
    while member != Self.none {
      if !members[member].isRefused { return members[member].token }
      member = members[member].before
    }
    return nil
  }

  /// etcd has refused a token: it is that of these members.
  func refuse(_ token: [UInt8]) {
    forEachMember { if members[$0].token == token { members[$0].isRefused = true } }
  }

  func forgetRefusals() { forEachMember { members[$0].isRefused = false } }

  // MARK: Heartbeats

  /// A member's request.
  func request(_ lease: Int64, _ sequence: UInt32, by member: UInt32) {
    let beat = table.find(lease) ?? begin(lease)
    var waiter = Waiter(member: member, beat: beat, sequence: sequence)
    waiter.before = beats[beat].gathering.last
    waiter.memberAfter = members[member].waiters
    let index = waiters.insert(waiter)
    if waiter.before == Self.none {
      beats[beat].gathering.first = index
    } else {
      waiters[waiter.before].after = index
    }
    beats[beat].gathering.last = index
    if waiter.memberAfter != Self.none { waiters[waiter.memberAfter].memberBefore = index }
    members[member].waiters = index
  }

  private func begin(_ lease: Int64) -> UInt32 {
    let beat = beats.insert(Beat(lease: lease))
    table.insert(lease, beat)
    append(beat, to: &due)
    return beat
  }

  /// The next lease whose heartbeat is to be sent; from now on it counts as sent.
  func takeDue() -> Int64? {
    let beat = due.first
    guard beat != Self.none else { return nil }
    take(beat, outOf: &due)
    append(beat, to: &flying)
    beats[beat].isFlying = true
    beats[beat].sent = beats[beat].gathering
    beats[beat].gathering = List()
    return beats[beat].lease
  }

  /// etcd has answered for a lease: everybody who shared that heartbeat gets it.
  ///
  /// - Returns: false when no heartbeat for it was under way.
  func answered(
    _ lease: Int64, _ body: (_ core: Int, _ stream: Handle, _ sequence: UInt32) -> Void
  ) -> Bool {
    guard let beat = table.find(lease), beats[beat].isFlying else { return false }
    while !beats[beat].sent.isEmpty {
      let index = beats[beat].sent.first
      let (member, sequence) = (waiters[index].member, waiters[index].sequence)
      remove(index)
      body(members[member].core, members[member].stream, sequence)
    }
    take(beat, outOf: &flying)
    beats[beat].isFlying = false
    beats[beat].failures = 0
    if beats[beat].gathering.isEmpty { drop(beat) } else { append(beat, to: &due) }
    return true
  }

  /// The stream to etcd is gone: what was not answered and is still waited for is due again, before everything else.
  func interrupted() {
    isOpen = false
    while !flying.isEmpty {
      let beat = flying.last
      take(beat, outOf: &flying)
      beats[beat].isFlying = false
      gatherSent(beat)
      if beats[beat].gathering.isEmpty { drop(beat) } else { prepend(beat, to: &due) }
    }
  }

  private func gatherSent(_ beat: UInt32) {
    let (sent, gathering) = (beats[beat].sent, beats[beat].gathering)
    beats[beat].sent = List()
    guard !sent.isEmpty else { return }
    guard !gathering.isEmpty else { return beats[beat].gathering = sent }
    waiters[sent.last].after = gathering.first
    waiters[gathering.first].before = sent.last
    beats[beat].gathering = List(first: sent.first, last: gathering.last)
  }

  /// The stream ended when it was the turn of the heartbeat that is under way for the longest time.
  ///
  /// - Returns: how often that has happened to it; 0 if none is under way.
  func blame() -> Int {
    let beat = flying.first
    guard beat != Self.none else { return 0 }
    beats[beat].failures = min(beats[beat].failures, .max - 1) + 1
    return Int(beats[beat].failures)
  }

  /// A member that waits for that heartbeat.
  var blamed: UInt32? {
    guard !flying.isEmpty, !beats[flying.first].sent.isEmpty else { return nil }
    return waiters[beats[flying.first].sent.first].member
  }

  // MARK: Lists

  private func drop(_ beat: UInt32) {
    table.remove(beats[beat].lease)
    beats.remove(beat)
  }

  /// Takes a waiter out of both its lists.
  private func remove(_ index: UInt32) {
    let waiter = waiters[index]
    waiters.remove(index)
    if waiter.before != Self.none {
      waiters[waiter.before].after = waiter.after
    } else if beats[waiter.beat].sent.first == index {
      beats[waiter.beat].sent.first = waiter.after
    } else {
      beats[waiter.beat].gathering.first = waiter.after
    }
    if waiter.after != Self.none {
      waiters[waiter.after].before = waiter.before
    } else if beats[waiter.beat].sent.last == index {
      beats[waiter.beat].sent.last = waiter.before
    } else {
      beats[waiter.beat].gathering.last = waiter.before
    }
    if waiter.memberBefore != Self.none {
      waiters[waiter.memberBefore].memberAfter = waiter.memberAfter
    } else {
      members[waiter.member].waiters = waiter.memberAfter
    }
    if waiter.memberAfter != Self.none { waiters[waiter.memberAfter].memberBefore = waiter.memberBefore }
  }

  private func append(_ beat: UInt32, to list: inout List) {
    beats[beat].before = list.last
    beats[beat].after = Self.none
    if list.isEmpty { list.first = beat } else { beats[list.last].after = beat }
    list.last = beat
  }

  private func prepend(_ beat: UInt32, to list: inout List) {
    beats[beat].before = Self.none
    beats[beat].after = list.first
    if list.isEmpty { list.last = beat } else { beats[list.first].before = beat }
    list.first = beat
  }

  private func take(_ beat: UInt32, outOf list: inout List) {
    let (before, after) = (beats[beat].before, beats[beat].after)
    if before == Self.none { list.first = after } else { beats[before].after = after }
    if after == Self.none { list.last = before } else { beats[after].before = before }
  }
}
