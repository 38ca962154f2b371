@testable import Proxy
@testable import Reactor

/// A batcher with clients on one core and an etcd that does as it is told.
final class HeartbeatBench {
  final class Upstream: HeartbeatUpstream {
    let line: HeartbeatLine
    let token: [UInt8]
    var isOpen = false
    var isOver = false
    private var sent: [Int64] = []

    init(_ line: HeartbeatLine, _ token: [UInt8]) { (self.line, self.token) = (line, token) }

    func open(_ batcher: HeartbeatBatcher) {
      batcher.opened(line)
      sendDue()
    }

    func sendDue() { while let lease = line.takeDue() { sent.append(lease) } }

    /// What has been sent since this was asked last.
    func takeSent() -> [Int64] {
      defer { sent.removeAll() }
      return sent
    }

    func lookAtEndpoint() {}
    func letGo() { isOver = true }
  }

  private final class Made {
    var upstreams: [Upstream] = []
  }

  let batcher: HeartbeatBatcher
  private let made = Made()
  private let isOpen: Bool
  private let pool = BlockPool()
  private var bag = HeartbeatMailbag()
  private var count: UInt32 = 0
  private var sequences: [Handle: UInt32] = [:]
  private var answers: [Handle: Int] = [:]
  private var ends: [Handle: GRPCStatus.Code] = [:]
  private var now = Instant(nanoseconds: 1)

  init(isOpen: Bool = true) {
    self.isOpen = isOpen
    let made = made
    batcher = HeartbeatBatcher(cores: 1, seed: 1) { line, token in
      made.upstreams.append(Upstream(line, token))
      return made.upstreams.last
    }
  }

  var upstreams: [Upstream] { made.upstreams }

  func join(token: [UInt8] = [], leader: Bool = false) -> Handle {
    let name = Handle(slot: count, generation: 1)
    count += 1
    let mail = bag.mail()
    mail.notes.append(.init(kind: .join, stream: name, sequence: UInt32(mail.joins.count), lease: 0))
    mail.joins.append(.init(principal: .nobody, token: token, requiresLeader: leader))
    return name
  }

  func beat(_ stream: Handle, _ lease: Int64) {
    let sequence = sequences[stream] ?? 0
    sequences[stream] = sequence + 1
    bag.mail().notes.append(.init(kind: .beat, stream: stream, sequence: sequence, lease: lease))
  }

  func leave(_ stream: Handle) {
    bag.mail().notes.append(.init(kind: .leave, stream: stream, sequence: 0, lease: 0))
  }

  func settle() {
    if let mail = bag.close() { batcher.take(mail, from: 0) }
    batcher.settle(now, isEnding: false)
    if isOpen { for upstream in upstreams where !upstream.isOpen && !upstream.isOver { openOne(upstream) } }
    guard let mail = batcher.mail(to: 0) else { return }
    for reply in mail.replies {
      switch reply.kind {
      case .answer: answers[reply.stream, default: 0] += 1
      case .end: ends[reply.stream] = mail.ends[Int(reply.place)].code
      }
    }
    bag.putBack(mail)
  }

  private func openOne(_ upstream: Upstream) {
    upstream.isOpen = true
    upstream.open(batcher)
  }

  func open(_ index: Int) { openOne(upstreams[index]) }

  func answer(_ index: Int, _ lease: Int64) {
    batcher.answered(upstreams[index].line, lease, heartbeatAnswer(lease, 5, pool), now)
    settle()
  }

  /// etcd ends a stream.
  func end(_ index: Int, _ code: GRPCStatus.Code, _ words: String) {
    let upstream = upstreams[index]
    _ = upstream.takeSent()
    if batcher.survives(upstream.line, code, words) {
      batcher.interrupted(upstream.line)
    } else {
      upstream.isOver = true
      batcher.ended(upstream.line, code, words, now)
    }
    settle()
  }

  /// etcd resets a stream.
  func reset(_ index: Int) {
    upstreams[index].isOver = true
    batcher.ended(upstreams[index].line, .internal, "stream terminated by RST_STREAM", now)
    settle()
  }

  func pass(_ span: Instant.Span) {
    now = now + span
    batcher.look(now)
    settle()
  }

  /// How many answers each stream has got since this was asked last.
  func takeAnswers() -> [Handle: Int] {
    defer { answers.removeAll() }
    return answers
  }

  func takeEnds() -> [Handle: GRPCStatus.Code] {
    defer { ends.removeAll() }
    return ends
  }
}
