import Simulation

@testable import Proxy
@testable import Reactor

/// The batcher among random streams and a random etcd, and what must hold.
///
/// Each heartbeat that is sent gets a number, which its answer carries as its seconds: so an answer tells which heartbeat it
/// belongs to, and what is known of that decides whether the client may have it.
final class HeartbeatModel {
  final class Request {
    let lease: Int64
    let sequence: UInt32
    /// When the batcher got it.
    let at: Int
    var isAnswered = false

    init(_ lease: Int64, _ sequence: UInt32, _ at: Int) {
      (self.lease, self.sequence, self.at) = (lease, sequence, at)
    }
  }

  final class Stream {
    let core: Int
    let name: Handle
    let key: HeartbeatLine.Key
    let token: [UInt8]
    var order = HeartbeatOrder()
    var requests: [Request] = []
    var isGone = false
    /// The batcher has heard of it.
    var isKnown = false
    var end: HeartbeatMail.End?

    init(_ core: Int, _ name: Handle, _ key: HeartbeatLine.Key, _ token: [UInt8]) {
      (self.core, self.name, self.key, self.token) = (core, name, key, token)
    }

    var unanswered: [Request] { requests.filter { !$0.isAnswered } }
  }

  struct Sent {
    let lease: Int64
    let number: Int
    let at: Int
  }

  /// A stream at a made up etcd.
  final class Upstream: HeartbeatUpstream {
    unowned let model: HeartbeatModel
    let line: HeartbeatLine
    let token: [UInt8]
    var isOpen = false
    var isOver = false
    var sent: [Sent] = []

    init(_ model: HeartbeatModel, _ line: HeartbeatLine, _ token: [UInt8]) {
      (self.model, self.line, self.token) = (model, line, token)
    }

    func sendDue() {
      if !isOpen { model.fail("sent on a stream that is not open") }
      while let lease = line.takeDue() { sent.append(model.send(lease, on: self)) }
    }

    func lookAtEndpoint() {}

    func letGo() {
      isOver = true
      if model.streams.contains(where: { $0.isKnown && !$0.isGone && $0.key == line.key }) {
        model.fail("a stream that is needed was let go of")
      }
    }
  }

  var random: SimRandom
  private(set) var failures: [String] = []
  private let pool = BlockPool()
  private var batcher: HeartbeatBatcher?
  private let cores: Int
  private var bags: [HeartbeatMailbag]
  private var next: [UInt32]
  private var generations: [[UInt32]]
  fileprivate var streams: [Stream] = []
  private var upstreams: [Upstream] = []
  private var beats: [Int: (key: HeartbeatLine.Key, sent: Sent)] = [:]
  private var clock = 0
  private var now = Instant(nanoseconds: 0)
  private(set) var merged = 0
  private(set) var answered = 0

  init(seed: UInt64) {
    random = SimRandom(seed: seed)
    cores = 1 + random.below(3)
    bags = Array(repeating: HeartbeatMailbag(), count: cores)
    next = Array(repeating: 0, count: cores)
    generations = Array(repeating: [], count: cores)
    batcher = HeartbeatBatcher(cores: cores, seed: seed) { [unowned self] line, token in
      if random.chance(20) { return nil }
      let upstream = Upstream(self, line, token)
      upstreams.append(upstream)
      return upstream
    }
  }

  func fail(_ text: String) { if failures.count < 10 { failures.append(text) } }

  // MARK: Clients

  func openStream() {
    let core = random.below(cores)
    let user = UInt32(random.below(3))
    let key = HeartbeatLine.Key(principal: principal(user), requiresLeader: random.chance(300))
    let slot: UInt32
    if let free = streams.first(where: {
      $0.isGone && $0.core == core && generations[core][Int($0.name.slot)] == $0.name.generation
    }) {
      slot = free.name.slot
    } else {
      slot = next[core]
      next[core] += 1
      generations[core].append(0)
    }
    generations[core][Int(slot)] += 1
    let name = Handle(slot: slot, generation: generations[core][Int(slot)])
    let token = user == 0 ? [] : [UInt8(user), UInt8(random.below(3))]
    streams.append(Stream(core, name, key, token))
    let mail = bags[core].mail()
    mail.notes.append(.init(kind: .join, stream: name, sequence: UInt32(mail.joins.count), lease: 0))
    mail.joins.append(
      .init(principal: key.principal, token: token, requiresLeader: key.requiresLeader))
  }

  private func principal(_ user: UInt32) -> Principal {
    let all = Principals()
    var found = Principal.nobody
    for number in 0..<user { found = all.find([UInt8(number)]) }
    return found
  }

  func beat() {
    guard let stream = living.randomElement(using: &random) else { return }
    clock += 1
    let request = Request(Int64(random.below(6)), stream.order.ask(), clock)
    stream.requests.append(request)
    bags[stream.core].mail().notes.append(
      .init(kind: .beat, stream: stream.name, sequence: request.sequence, lease: request.lease))
  }

  func leave() {
    guard let stream = living.randomElement(using: &random) else { return }
    go(stream)
  }

  private func go(_ stream: Stream) {
    stream.isGone = true
    bags[stream.core].mail().notes.append(
      .init(kind: .leave, stream: stream.name, sequence: 0, lease: 0))
  }

  private var living: [Stream] { streams.filter { !$0.isGone } }

  // MARK: The turn

  func turn() {
    guard let batcher else { return }
    clock += 1
    for core in 0..<cores where random.chance(700) {
      if let mail = bags[core].close() { batcher.take(mail, from: core) }
      for stream in streams where stream.core == core { stream.isKnown = true }
    }
    batcher.settle(now, isEnding: false)
    for core in 0..<cores { if let mail = batcher.mail(to: core) { deliver(mail, to: core) } }
    if random.chance(100) {
      now = now + .milliseconds(UInt64(random.below(3_000)))
      batcher.look(now)
    }
  }

  private func deliver(_ mail: HeartbeatMail, to core: Int) {
    for reply in mail.replies {
      let found = streams.first { $0.core == core && $0.name == reply.stream && !$0.isGone }
      guard let stream = found else { continue }
      switch reply.kind {
      case .end:
        stream.end = mail.ends[Int(reply.place)]
        go(stream)
      case .answer:
        var output = ByteBuffer(pool)
        _ = stream.order.answer(reply.sequence, mail.answers[Int(reply.place)], to: &output)
        for answer in heartbeatAnswers(output) { judge(answer, stream) }
      }
    }
    bags[core].putBack(mail)
  }

  /// An answer reaches a client: it must be for its oldest request, and of a heartbeat sent after that.
  private func judge(_ answer: LeaseKeepAliveResponse, _ stream: Stream) {
    guard let request = stream.unanswered.first, let beat = beats[Int(answer.seconds)] else {
      return fail("an answer that nobody asked for")
    }
    request.isAnswered = true
    answered += 1
    if answer.id != request.lease { fail("the answer for \(answer.id) came for \(request.lease)") }
    if beat.sent.lease != request.lease { fail("the answer is of another lease") }
    if beat.key != stream.key { fail("the answer is of another user's stream") }
    if beat.sent.at <= request.at { fail("the heartbeat was sent before it was asked for") }
  }

  // MARK: etcd

  private func send(_ lease: Int64, on upstream: Upstream) -> Sent {
    clock += 1
    let key = upstream.line.key
    let askers = streams.filter { stream in
      !stream.isGone && stream.key == key && stream.unanswered.contains { $0.lease == lease }
    }
    // Those who left in this very turn may not have said so yet.
    let leaving = streams.contains { stream in
      stream.isGone && stream.key == key && stream.unanswered.contains { $0.lease == lease }
    }
    if askers.isEmpty, !leaving { fail("a heartbeat that nobody asked for") }
    if upstream.sent.contains(where: { $0.lease == lease }) { fail("two heartbeats of a lease at a time") }
    if askers.count > 1 { merged += 1 }
    let sent = Sent(lease: lease, number: beats.count + 1, at: clock)
    beats[sent.number] = (key, sent)
    return sent
  }

  private var running: [Upstream] { upstreams.filter { !$0.isOver } }

  /// etcd answers the oldest heartbeats of a stream, one by one.
  func answer() {
    guard let upstream = running.filter({ !$0.sent.isEmpty }).randomElement(using: &random) else { return }
    for _ in 0..<1 + random.below(upstream.sent.count) {
      let sent = upstream.sent.removeFirst()
      batcher?.answered(
        upstream.line, sent.lease, heartbeatAnswer(sent.lease, Int64(sent.number), pool), now)
    }
  }

  func open() {
    for upstream in running where !upstream.isOpen && random.chance(500) { open(upstream) }
  }

  private func open(_ upstream: Upstream) {
    upstream.isOpen = true
    batcher?.opened(upstream.line)
    if upstream.line.hasDue { upstream.sendDue() }
  }

  /// The connection breaks; the call is made again.
  func breakOne() {
    guard let upstream = running.filter(\.isOpen).randomElement(using: &random) else { return }
    lose(upstream)
    batcher?.interrupted(upstream.line)
  }

  private func lose(_ upstream: Upstream) {
    upstream.isOpen = false
    upstream.sent.removeAll()
  }

  /// etcd ends a stream with a status.
  func endOne() {
    guard let upstream = running.filter(\.isOpen).randomElement(using: &random) else { return }
    let (code, words): (GRPCStatus.Code, String) = random.pick([
      (.unavailable, "etcdserver: no leader"), (.unavailable, "etcdserver: server stopped"),
      (.unauthenticated, "etcdserver: invalid auth token"),
      (.permissionDenied, "etcdserver: permission denied"),
    ])
    let line = upstream.line
    if batcher?.survives(line, code, words) == true {
      lose(upstream)
      batcher?.interrupted(line)
    } else {
      lose(upstream)
      upstream.isOver = true
      batcher?.ended(line, code, words, now)
    }
  }

  /// In peace everything is answered, and what nobody needs goes away.
  func finish() {
    for _ in 0..<400 {
      open()
      answer()
      turn()
    }
    for stream in living {
      if let request = stream.unanswered.first {
        fail("never answered: lease \(request.lease), \(request.sequence) of \(stream.requests.count)")
      }
    }
    for stream in living { go(stream) }
    for _ in 0..<200 { turn() }
    if batcher?.waiting != 0 { fail("\(batcher?.waiting ?? 0) requests are left") }
    if batcher?.isIdle != true { fail("a line is left") }
    if !running.isEmpty { fail("\(running.count) streams at etcd are left") }
  }
}
