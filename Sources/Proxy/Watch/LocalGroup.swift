internal import Reactor

/// A group on a core that has watchers of it: the history that they move through.
final class LocalGroup {
  let key: GroupKey
  let isLive: Bool
  /// The core it lives on, and its number there once that has answered.
  let home: Int
  var id: UInt32 = 0
  /// The number of its cover at home; 0 is none.
  var cover: UInt32 = 0
  /// Where it stands; nil until the upstream watch has stood once.
  private(set) var state: WatchState?
  /// Which of the hub's questions for progress came last before it stood first.
  private(set) var stoodAfter: UInt32 = .max
  /// The smallest revision that has not come completely.
  var next: Int64 = 0
  var header = ResponseHeader()
  var history = WatchHistory()
  /// For a group that brings the past: the block that its fastest watcher is given next, and the bytes before it that its home has
  /// not been told of.
  private(set) var fastest = 0
  private(set) var unreported = 0
  /// How it ended. Watchers that are behind still get what is in the history.
  var end: WatchEnd?
  var watchers: [Handle] = []
  /// Groups that bring the past of this one, newest last.
  var catchUps: [LocalGroup] = []
  /// For a group that brings the past: the one it leads to.
  weak var target: LocalGroup?
  /// One of its watchers has asked for progress notifications.
  var wantsProgress = false
  /// Its last watcher's connection broke.
  var wasBroken = false
  /// There are watchers that have not been looked at.
  var hasNew = false
  /// Something has come since its watchers were last looked at.
  var isDirty = false
  /// Its home is about to be told how far its watchers are.
  var isConsumed = false
  var progressRevision: Int64 = 0
  /// The home has been asked for what was there before.
  var askedPrevious: Bool
  /// When etcd has let its principal in, and which state of users and roles that was.
  var permittedAt: Instant?
  var permittedVersion: UInt64 = 0
  /// Tokens that the home has been told last.
  private var tokens: [[UInt8]] = []

  /// What the home's answer to this group's subscription bears.
  let ticket: UInt64

  init(_ key: GroupKey, home: Int, ticket: UInt64, wantsPrevious: Bool) {
    self.key = key
    isLive = key.isLive
    self.home = home
    self.ticket = ticket
    askedPrevious = wantsPrevious
  }

  /// True when the home has to be told of the token.
  func learn(_ token: [UInt8]) -> Bool {
    guard !tokens.contains(token) else { return false }
    tokens.append(token)
    if tokens.count > Limits.watchTokens { tokens.removeFirst() }
    return true
  }

  /// The home says where the group stands.
  func stands(_ state: WatchState, afterQuestion number: UInt32) {
    if self.state == nil {
      stoodAfter = number
      history.restart(from: state.from)
    }
    self.state = state
    next = max(next, state.next)
    header = state.header
  }

  /// Adds a block. What brings the past keeps everything that no watcher has had: its home sees to it that this is not much.
  func append(_ block: WatchBlock, now: Instant, most: Int) {
    history.append(block, now: now, most: most, needed: isLive ? .max : fastest)
  }

  /// A watcher has come so far.
  ///
  /// - Returns: true when there is something to be told to the home of a group that brings the past.
  func reached(_ cursor: Int) -> Bool {
    guard !isLive, cursor > fastest else { return false }
    for number in max(fastest, history.base)..<max(cursor, fastest, history.base) {
      unreported += history[number].byteCount
    }
    fastest = cursor
    return unreported > 0 && end == nil
  }

  /// The bytes to be told, if that is worth while.
  func takeReport() -> Int {
    guard fastest == history.end || unreported > Limits.catchUpBytes / 4 else { return 0 }
    defer { unreported = 0 }
    return unreported
  }

  /// Lets go of what is old. False when a group that brings the past has nobody who takes it.
  func trim(before time: Instant, most: Int) -> Bool {
    guard end == nil else {
      // Who is behind in it may have all of it.
      history.trim(before: time)
      return true
    }
    let needed = isLive ? .max : fastest
    history.trim(before: time, needed: needed)
    history.shrink(to: most, needed: needed)
    return isLive || fastest == history.end || history.since(fastest) >= time
  }

  /// From which revision on the history serves a watcher.
  func reach(wantsPrevious: Bool) -> Int64 {
    wantsPrevious ? max(history.from, state?.previousFrom ?? .max) : history.from
  }
}

/// A client's watch on its core: a cursor into its group's history.
struct Watcher {
  struct Flags: OptionSet {
    let rawValue: UInt16
    static let wantsProgress = Flags(rawValue: 1)
    static let wantsPrevious = Flags(rawValue: 2)
    /// Its group can serve it; `created` may be said.
    static let isSettled = Flags(rawValue: 4)
    /// `created` has been said: events may follow.
    static let isCreated = Flags(rawValue: 8)
    /// In its stream's line.
    static let isReady = Flags(rawValue: 16)
    static let owesProgress = Flags(rawValue: 32)
    /// Whether its client may read the keys is being asked.
    static let isUnchecked = Flags(rawValue: 64)
    /// At the end of the turn it goes to another group; until then it is not served.
    static let isMoving = Flags(rawValue: 128)
  }

  unowned(unsafe) let stream: WatchStream
  unowned(unsafe) var group: LocalGroup
  /// Its place among the group's watchers.
  var place = 0
  /// The number that its client knows it by, once it has been created.
  var id: Int64
  let start: Int64
  /// The smallest revision that it still wants.
  var floor: Int64
  /// The block that it is given next.
  var cursor = 0
  let variant: WatchBlock.Variant
  var flags: Flags
  var nextReady = Handle.none

  /// Its cursor means something in its group's history.
  var canBeServed: Bool {
    guard !flags.contains(.isMoving) else { return false }
    return unsafe flags.contains(.isSettled) || group.end != nil
  }

  init(_ stream: WatchStream, _ group: LocalGroup, _ request: WatchCreateRequest) {
    unsafe self.stream = stream
    unsafe self.group = group
    id = request.watchID
    start = request.startRevision
    floor = max(0, request.startRevision)
    var variant = WatchBlock.Variant()
    if request.leavesOutPuts { variant.insert(.noPuts) }
    if request.leavesOutDeletes { variant.insert(.noDeletes) }
    if !request.wantsPrevious { variant.insert(.noPrevious) }
    if request.allowsFragments { variant.insert(.parts) }
    self.variant = variant
    flags = []
    if request.wantsProgress { flags.insert(.wantsProgress) }
    if request.wantsPrevious { flags.insert(.wantsPrevious) }
  }
}
