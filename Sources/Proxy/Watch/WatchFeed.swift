internal import Reactor

/// A watch stream to etcd that carries many groups of a home core.
final class WatchFeed: OwnCall {
  /// Groups that catch up have a stream of their own, so that their past does not stand before what happens now. And one
  /// without a watch is there to be asked what etcd answers there.
  enum Kind: Hashable, Sendable { case live, catchUp, empty }

  struct Key: Hashable, Sendable {
    let principal: Principal
    let requiresLeader: Bool
    let kind: Kind
    let token: [UInt8]
  }

  let key: Key
  private unowned let home: WatchHome
  private var groups: [Int64: HomeGroup] = [:]
  private var lastID: Int64 = 0
  /// Groups whose watch has to be made (again), and how many have been asked for and not answered.
  private var unmade: [HomeGroup] = []
  private var unanswered = 0
  private(set) var isOpen = false
  /// Questions for progress: those that etcd has not been asked, and those that it has.
  private var toAsk: [(core: Int, question: WatchQuestion)] = []
  private var asked: [(core: Int, question: WatchQuestion)] = []
  private var askedAt = Instant(nanoseconds: 0)
  /// The last watch that those questions are about.
  private var askedOf: Int64 = 0
  private var standing = StandingWatches()
  /// The question under way is nobody's; whoever asks has to wait, for its answer would be too old.
  private var isLocating = false
  private(set) var idleSince: Instant

  init(_ key: Key, _ home: WatchHome) {
    self.key = key
    self.home = home
    idleSince = home.core.now
    super.init(
      home.core, .watch, token: key.token, requiresLeader: key.requiresLeader, isPersistent: true)
  }

  /// Nobody needs it.
  var isIdle: Bool { !hasGroups && toAsk.isEmpty && asked.isEmpty }
  var hasGroups: Bool { !groups.isEmpty || !unmade.isEmpty }

  // MARK: Groups

  /// Makes the group's watch on this stream.
  func add(_ group: HomeGroup) {
    group.feed = self
    group.phase = .connecting
    unmade.append(group)
    makeSome()
  }

  /// Takes the group's watch back.
  ///
  /// - Parameter isComingBack: its watchers go on, so an answer about progress that is under way does not speak of them any more.
  func remove(_ group: HomeGroup, isComingBack: Bool = false) {
    if group.upstreamID == 0 { unmade.removeAll { $0 === group } }
    if group.upstreamID != 0, groups.removeValue(forKey: group.upstreamID) != nil {
      if group.phase == .connecting { unanswered -= 1 }
      say { WatchRequest.encodeCancel(watchID: group.upstreamID, into: &$0) }
    }
    group.upstreamID = 0
    group.feed = nil
    group.fragments.removeAll()
    if !hasGroups { idleSince = home.core.now }
    // Newer etcds do not say how far a stream without watches is.
    if !hasGroups || isComingBack { giveUpAnswers() }
    makeSome()
  }

  /// Whoever has asked how far the stream is has to ask again.
  private func giveUpAnswers() {
    isLocating = false
    let questions = asked + toAsk
    asked.removeAll()
    toAsk.removeAll()
    for (core, question) in questions { home.answered(question, core, nil) }
  }

  /// At most so many creates are under way that etcd is not flooded when it comes back.
  private func makeSome() {
    guard isOpen else { return }
    var made = 0
    while made < unmade.count, unanswered < Limits.watchCreatesUnderWay {
      let group = unmade[made]
      lastID += 1
      group.upstreamID = lastID
      groups[lastID] = group
      unanswered += 1
      made += 1
      let request = group.request(lastID)
      say { request.encode(into: &$0) }
    }
    unmade.removeFirst(made)
    askSome()
  }

  /// Its groups up to a number that have a watch.
  func standing(upTo last: Int64) -> [HomeGroup] {
    groups.compactMap {
      $0.key <= last && $0.value.phase == .live && $0.value.fragments.isEmpty ? $0.value : nil
    }
  }

  // MARK: The stream

  override func opened() {
    isOpen = true
    standing = StandingWatches()
    isLocating = false
    unanswered = 0
    for group in groups.values.sorted(by: { $0.id < $1.id }) {
      group.upstreamID = 0
      group.phase = .connecting
      group.fragments.removeAll()
      unmade.append(group)
    }
    groups.removeAll()
    makeSome()
  }

  override func interrupted() {
    isOpen = false
    toAsk = asked + toAsk
    asked.removeAll()
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    isOpen = false
    let all = Array(groups.values) + unmade
    groups.removeAll()
    unmade.removeAll()
    let questions = asked + toAsk
    asked.removeAll()
    toAsk.removeAll()
    for group in all {
      group.upstreamID = 0
      group.feed = nil
      group.fragments.removeAll()
    }
    home.feedEnded(self, code, words, all, questions)
  }

  override func received(_ message: UnsafeRawBufferPointer) {
    guard let response = unsafe try? WatchResponse(message) else {
      return core.drop(self, .internal, Array("etcd sent a watch response that cannot be read".utf8))
    }
    home.saw(response.header)
    guard let group = groups[response.watchID] else {
      // An answer for the stream as a whole, or for a watch that has been taken back.
      if response.watchID == -1 {
        if response.isProgress { answered(response.header) } else { refusedWithoutID(response) }
      }
      return
    }
    if response.isCreated {
      unanswered -= 1
      if !response.isCanceled { home.stands(group, response.header) }
      makeSome()
    }
    if response.isCanceled {
      groups.removeValue(forKey: response.watchID)
      group.upstreamID = 0
      group.feed = nil
      return home.canceled(group, response, by: self)
    }
    if response.eventCount > 0 || response.isFragment {
      take(response, for: group)
    } else if response.isProgress {
      home.progressed(group, response.header)
    }
  }

  /// etcd (from 3.5 on) refuses a watch without naming it: creates are answered in order, so it is the first that waits.
  private func refusedWithoutID(_ response: WatchResponse) {
    guard response.isCreated, let first = groups.filter({ $0.value.phase == .connecting }).keys.min(),
      let group = groups.removeValue(forKey: first)
    else { return }
    unanswered -= 1
    group.upstreamID = 0
    group.feed = nil
    home.canceled(group, response, by: self)
    makeSome()
  }

  /// Events; those in fragments wait for the last one.
  private func take(_ response: WatchResponse, for group: HomeGroup) {
    guard response.isFragment || !group.fragments.isEmpty else {
      var events = ByteBuffer(core.pool)
      response.copyEvents(into: &events)
      return unsafe home.brought(group, events.bytes, response.header)
    }
    response.copyEvents(into: &group.fragments)
    guard !response.isFragment else { return }
    unsafe home.brought(group, group.fragments.bytes, response.header)
    group.fragments.removeAll()
  }

  // MARK: Progress

  /// Asks how far this stream is. One question serves all who ask before it is sent.
  func ask(_ question: WatchQuestion, from core: Int) {
    toAsk.append((core, question))
    askSome()
  }

  private func askSome() {
    guard asked.isEmpty, !isLocating, !toAsk.isEmpty, allStand else { return }
    swap(&asked, &toAsk)
    askedOf = lastID
    sayQuestion()
  }

  private var allStand: Bool { isOpen && unmade.isEmpty && unanswered == 0 }

  private func sayQuestion() {
    askedAt = core.now
    standing.asked(allStand ? lastID : nil)
    say { WatchRequest.encodeProgress(into: &$0) }
  }

  /// Asks how far the watches are, so that those get on that have no events.
  func locate() {
    guard hasGroups, asked.isEmpty, !isLocating, allStand else { return }
    isLocating = true
    sayQuestion()
  }

  private func answered(_ header: ResponseHeader) {
    isLocating = false
    let last = standing.answered()
    if key.kind == .catchUp, core.shared.hasSoundProgress.load(ordering: .relaxed) {
      for (id, group) in groups where id <= last { home.located(group, header) }
    }
    if key.kind == .live, core.shared.hasSoundProgress.load(ordering: .relaxed) {
      home.positioned(self, header, last: last)
    }
    // One to an older question does not speak of the newest watches: the next one will.
    guard asked.isEmpty || last >= askedOf else { return }
    let questions = asked
    asked.removeAll()
    for (core, question) in questions { home.answered(question, core, header) }
    askSome()
  }

  /// etcd does not answer while a watch on the stream is behind: it is asked again.
  func remind() {
    guard isOpen, !asked.isEmpty || isLocating, core.now - askedAt >= Limits.progressReminder else { return }
    if key.kind == .empty {
      // etcd has answered at once, or never will; nor do we.
      asked.removeAll()
      idleSince = core.now
      return
    }
    sayQuestion()
  }
}
