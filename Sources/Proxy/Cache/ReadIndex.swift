internal import Reactor

/// One small linearizable read that tells how far etcd is (a read index), for all consistent reads that came before it.
final class ReadIndex: OwnCall {
  private unowned let indexes: ReadIndexes
  let principal: Principal
  let calls: [Handle]
  private var revision: Int64 = 0
  private let key: [UInt8]

  init(
    _ indexes: ReadIndexes, _ core: ProxyCore, _ principal: Principal, token: [UInt8], key: [UInt8],
    calls: [Handle]
  ) {
    self.indexes = indexes
    self.principal = principal
    self.calls = calls
    self.key = key
    super.init(core, .range, token: token)
  }

  override func opened() {
    say { RangeRequest(key: key, limit: 1, keysOnly: true).encode(into: &$0) }
    finish()
  }

  override func received(_ message: UnsafeRawBufferPointer) {
    revision = unsafe (try? ResponseHeader.of(answer: message))?.revision ?? 0
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    indexes.ended(self, code == .ok && revision > 0 ? revision : nil)
  }
}

/// Consistent reads that wait: for a read index to be asked, for its answer, or for their keepers to have come so far.
///
/// One question a principal is under way at a time; who comes meanwhile waits for the next.
final class ReadIndexes {
  private struct Group {
    var gathering: [Handle] = []
    var isAsking = false
  }

  private struct Parked {
    let call: Handle
    let revision: Int64
    let until: Instant
  }

  /// The owner. A weak reference would give it a side table, and make every retain of it slow.
  unowned var core: ProxyCore?
  private var groups: [Principal: Group] = [:]
  private var answered: [(ReadIndex, Int64?)] = []
  private var parked: [Parked] = []
  private(set) var isUnsettled = false
  private var timer = TimerWheel.Timer.none

  func join(_ call: Handle, _ principal: Principal) {
    groups[principal, default: Group()].gathering.append(call)
    isUnsettled = true
  }

  /// An answer has come, or none will: nil.
  func ended(_ index: ReadIndex, _ revision: Int64?) {
    answered.append((index, revision))
    groups[index.principal]?.isAsking = false
    isUnsettled = true
  }

  /// The end of the turn: nothing is under edit.
  func settle() {
    guard let core else { return }
    if !parked.isEmpty, core.reads.hasNews || parked.contains(where: { $0.until <= core.now }) { lookAgain() }
    guard isUnsettled else { return }
    isUnsettled = false
    for (index, revision) in answered {
      for call in index.calls {
        guard let revision else {
          core.answerFromEtcd(call)
          continue
        }
        if core.answerConsistently(call, atLeast: revision, mayWait: true) {
          parked.append(
            Parked(call: call, revision: revision, until: core.now + Limits.consistentReadPatience))
        }
      }
    }
    answered.removeAll()
    scheduleLook()
    for principal in Array(groups.keys) { ask(principal) }
  }

  private func lookAgain() {
    guard let core else { return }
    let waiting = parked
    parked = []
    for read in waiting {
      let mayWait = read.until > core.now
      if core.answerConsistently(read.call, atLeast: read.revision, mayWait: mayWait) { parked.append(read) }
    }
    scheduleLook()
  }

  private func scheduleLook() {
    guard let core, let first = parked.first, timer == .none else { return }
    timer = core.timers.schedule(
      at: first.until,
      Token(owner: ProxyCore.Owner.core, operation: ProxyCore.CoreTimer.patienceOfReads, handle: .none))
  }

  /// Somebody has waited long enough.
  func patienceEnded() {
    timer = .none
    scheduleLook()
  }

  private func ask(_ principal: Principal) {
    guard let core, let group = groups[principal], !group.isAsking else { return }
    let calls = group.gathering
    guard let question = calls.lazy.compactMap({ core.readQuestion($0) }).first else {
      groups[principal] = nil
      return
    }
    let index = ReadIndex(self, core, principal, token: question.token, key: question.key, calls: calls)
    core.reads.cache.count(.readIndexes)
    groups[principal] = Group(gathering: [], isAsking: true)
    if !index.begin() {
      groups[principal] = nil
      for call in calls { core.answerFromEtcd(call) }
    }
  }
}

extension ProxyCore {
  /// A key that the caller of a read may read, and the token that says so.
  fileprivate func readQuestion(_ id: Handle) -> (key: [UInt8], token: [UInt8])? {
    calls.edit(id) { call -> (key: [UInt8], token: [UInt8])? in
      guard call.read.stage == .indexing else { return nil }
      let bytes = unsafe call.rewrites ? call.inbox.bytes : call.request.bytes
      guard let length = unsafe GRPCMessage.complete(bytes) else { return nil }
      let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[GRPCMessage.prefix..<length])
      guard let query = unsafe RangeQuery(message) else { return nil }
      let token = unsafe Array(token(of: call))
      return unsafe ((shared.namespace?.prefix ?? []) + Array(query.key), token)
    } ?? nil
  }
}
