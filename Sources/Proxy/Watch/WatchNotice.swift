internal import Reactor

/// What a home core tells the cores that have watchers of its groups, over its broadcast ring: a small plain value. What it
/// refers to is kept alive by the home core until all cores have read the notice.
struct WatchNotice: BitwiseCopyable, Sendable {
  enum Kind: UInt8 {
    /// The answer to a subscription; a `WatchSnapshot`.
    case joined
    /// The upstream watch stands (again); a `WatchState`.
    case live
    /// A `WatchBlock`.
    case block
    /// Everything up to a revision has been sent; a `WatchState`.
    case progress
    /// The same two of a cover's watch, for all its lanes.
    case lanesLive, lanesProgress
    /// The group has its blocks from a cover from now on, or from a watch of its own again; a `WatchLaneNote`.
    case covered
    /// The group is over; a `WatchEnd`.
    case ended
    /// The answer to a question for progress, whose number is in `group`; a `WatchState`, or nothing when it fails.
    case answer
  }

  static let everybody = UInt16.max

  let kind: UInt8
  /// The core that it is for.
  let core: UInt16
  let group: UInt32
  let object: UInt

  init(_ kind: Kind, to core: UInt16 = Self.everybody, group: UInt32, _ object: AnyObject?) {
    self.kind = kind.rawValue
    self.core = core
    self.group = group
    self.object =
      object.map { unsafe UInt(bitPattern: Unmanaged.passUnretained($0).toOpaque()) } ?? 0
  }

  /// What the notice refers to, while the home core keeps it alive.
  var referred: AnyObject? {
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: object) else { return nil }
    return unsafe Unmanaged<AnyObject>.fromOpaque(pointer).takeUnretainedValue()
  }
}

/// Where a group stands.
final class WatchState: Sendable {
  /// The header of the answer that says so.
  let header: ResponseHeader
  /// The smallest revision that has not been received completely.
  let next: Int64
  /// Nothing older is in the history.
  let from: Int64
  /// From here on events carry what was there before; `.max` if they do not.
  let previousFrom: Int64

  init(header: ResponseHeader, next: Int64, from: Int64, previousFrom: Int64) {
    self.header = header
    self.next = next
    self.from = from
    self.previousFrom = previousFrom
  }
}

/// Which cover a group is a lane of.
final class WatchLaneNote: Sendable {
  /// Its number at home; 0 is none.
  let cover: UInt32

  init(cover: UInt32) { self.cover = cover }
}

/// All that a core needs to serve watchers of a group.
final class WatchSnapshot: Sendable {
  let key: GroupKey
  /// That of the subscription which it answers.
  let ticket: UInt64
  /// The number of the cover whose lane it is; 0 if it has a watch of its own.
  let cover: UInt32
  /// Nil while the upstream watch does not stand for the first time.
  let state: WatchState?
  let blocks: [WatchBlock]

  init(key: GroupKey, ticket: UInt64, cover: UInt32, state: WatchState?, blocks: [WatchBlock]) {
    self.key = key
    self.ticket = ticket
    self.cover = cover
    self.state = state
    self.blocks = blocks
  }
}

/// How a group ended.
final class WatchEnd: Sendable {
  enum Reason: Sendable {
    /// etcd took the watch back, or never had it: what its answer said.
    case canceled(compactRevision: Int64, reason: [UInt8], isRefusal: Bool, hasNoID: Bool)
    /// The same, because of tokens: whoever has another one tries that.
    case refused(reason: [UInt8], hasNoID: Bool, tokens: [[UInt8]])
    /// The upstream stream ended with a status that is meant for those on it.
    case status(GRPCStatus.Code, [UInt8])
    /// The group gives way to a new one: its watchers join again from where they are.
    case replaced
  }

  let header: ResponseHeader
  let reason: Reason

  init(header: ResponseHeader, _ reason: Reason) {
    self.header = header
    self.reason = reason
  }
}

/// What a core asks of a group's home.
enum WatchMail: Sendable {
  case subscribe(WatchSubscription)
  /// The last watcher is gone. One whose connection broke may come back.
  case unsubscribe(group: UInt32, mayComeBack: Bool)
  /// Another token of one of its watchers.
  case token(group: UInt32, [UInt8])
  /// A watcher wants to know what was there before.
  case wantPrevious(group: UInt32)
  /// The fastest watcher of a group that brings the past has been given so many bytes of its blocks.
  case consumed(group: UInt32, Int)
  /// All streams of the principal are asked how far they are; the answer bears the number.
  case progress(WatchQuestion)
}

/// A core's wish for a group.
struct WatchSubscription: Sendable {
  let key: GroupKey
  /// The subscriber's own number for its group, which comes back with the answer: a group that was left and is wanted again must
  /// not take the answer that was meant for the first one, for what happened in between is not in it.
  let ticket: UInt64
  /// The token of one of its watchers.
  let token: [UInt8]
  let wantsPrevious: Bool
  /// Where a group that does not exist yet begins; 0 is now.
  let start: Int64
}

/// A client stream's question for progress.
struct WatchQuestion: Sendable {
  let number: UInt32
  let principal: Principal
  let requiresLeader: Bool
  let token: [UInt8]
  /// The stream has no watchers: it is asked on one that has none either.
  let isEmpty: Bool
}

extension WatchEnd {
  /// What etcd's answer said.
  var verdict: (compactRevision: Int64, reason: [UInt8], hasNoID: Bool) {
    switch reason {
    case .canceled(let revision, let words, _, let hasNoID): (revision, words, hasNoID)
    case .refused(let words, let hasNoID, _): (0, words, hasNoID)
    case .status, .replaced: (0, [], false)
    }
  }

  /// The watch never was.
  var isRefusal: Bool {
    switch reason {
    case .canceled(let revision, _, let isRefusal, _): isRefusal || revision == 0
    case .refused: true
    case .status, .replaced: false
    }
  }
}
