internal import Reactor

/// A stream to etcd that carries a line's heartbeats.
protocol HeartbeatUpstream: AnyObject {
  /// Sends all heartbeats that are due.
  func sendDue()
  /// Heartbeats have not been answered for a while.
  func lookAtEndpoint()
  /// Nobody needs it any more.
  func letGo()
}

/// Where the heartbeats of all cores meet: lines, the streams that share them, and what goes back to those. Does no I/O.
final class HeartbeatBatcher {
  /// A client's stream, by its number on its core.
  private struct Place {
    var generation: UInt32
    var line: HeartbeatLine
    var member: UInt32
  }

  private var lines: [HeartbeatLine.Key: HeartbeatLine] = [:]
  private var places: [[Place?]]
  /// What goes to each core, and the empty mail of each.
  private var bags: [HeartbeatMailbag]
  /// Lines with something to do before the turn ends.
  private var touched: [HeartbeatLine] = []
  private let seed: UInt64
  private let makeUpstream: (HeartbeatLine, [UInt8]) -> (any HeartbeatUpstream)?
  /// Requests that have not been answered.
  private(set) var waiting = 0
  /// Answers of etcd so far, so that those who share one also share its bytes.
  private var answers: UInt64 = 0

  init(
    cores: Int, seed: UInt64, makeUpstream: @escaping (HeartbeatLine, [UInt8]) -> (any HeartbeatUpstream)?
  ) {
    self.seed = seed
    self.makeUpstream = makeUpstream
    places = Array(repeating: [], count: cores)
    bags = Array(repeating: HeartbeatMailbag(), count: cores)
  }

  var isIdle: Bool { lines.isEmpty }
  /// Streams at etcd.
  var upstreams: Int { lines.values.reduce(0) { $0 + ($1.upstream == nil ? 0 : 1) } }

  // MARK: From the cores

  /// Takes in what the streams of a core had to say.
  func take(_ mail: HeartbeatMail, from core: Int) {
    for note in mail.notes {
      switch note.kind {
      case .join: join(core, note.stream, mail.joins[Int(note.sequence)])
      case .beat: beat(core, note)
      case .leave: leave(core, note.stream)
      }
    }
    bags[core].putBack(mail)
  }

  /// What there is for a core, to be sent.
  func mail(to core: Int) -> HeartbeatMail? { bags[core].close() }

  private func join(_ core: Int, _ stream: Handle, _ join: Credentials) {
    let key = HeartbeatLine.Key(principal: join.principal, requiresLeader: join.requiresLeader)
    let line = lines[key] ?? HeartbeatLine(key, seed: seed)
    lines[key] = line
    let slot = Int(stream.slot)
    while places[core].count <= slot { places[core].append(nil) }
    let member = line.join(core: core, stream, token: join.token)
    places[core][slot] = Place(generation: stream.generation, line: line, member: member)
    touch(line)
  }

  private func beat(_ core: Int, _ note: HeartbeatMail.Note) {
    guard let place = places[core][Int(note.stream.slot)], place.generation == note.stream.generation
    else { return }
    guard waiting < Limits.heartbeatsWaiting else {
      return end(place.line, place.member, .resourceExhausted, "too many heartbeats wait; try again later")
    }
    waiting += 1
    place.line.request(note.lease, note.sequence, by: place.member)
    touch(place.line)
  }

  private func leave(_ core: Int, _ stream: Handle) {
    guard let place = places[core][Int(stream.slot)], place.generation == stream.generation else { return }
    remove(core, stream, place.line, place.member)
  }

  private func remove(_ core: Int, _ stream: Handle, _ line: HeartbeatLine, _ member: UInt32) {
    let before = line.waiterCount
    line.leave(member)
    waiting -= before - line.waiterCount
    places[core][Int(stream.slot)] = nil
    touch(line)
  }

  private func touch(_ line: HeartbeatLine) {
    guard !line.isTouched else { return }
    line.isTouched = true
    touched.append(line)
  }

  // MARK: To the cores

  /// Ends a client's stream.
  private func end(
    _ line: HeartbeatLine, _ member: UInt32, _ code: GRPCStatus.Code, _ words: String
  ) {
    let (core, stream) = (line[member].core, line[member].stream)
    let mail = bags[core].mail()
    mail.replies.append(
      HeartbeatMail.Reply(kind: .end, stream: stream, sequence: 0, place: UInt32(mail.ends.count)))
    mail.ends.append(HeartbeatMail.End(code: code, words: words))
    remove(core, stream, line, member)
  }

  /// etcd has answered a heartbeat.
  func answered(_ line: HeartbeatLine, _ lease: Int64, _ answer: HeartbeatAnswer, _ now: Instant) {
    line.progressed = now
    line.pause = .zero
    line.refusals = 0
    answers &+= 1
    _ = line.answered(lease) { core, stream, sequence in
      waiting -= 1
      let mail = bags[core].mail()
      if mail.lastAnswer != answers {
        mail.lastAnswer = answers
        mail.answers.append(answer)
      }
      mail.replies.append(
        HeartbeatMail.Reply(
          kind: .answer, stream: stream, sequence: sequence, place: UInt32(mail.answers.count - 1)))
    }
    if line.hasDue { touch(line) }
  }

  // MARK: The stream to etcd

  /// A stream is open: it can be told what is due.
  func opened(_ line: HeartbeatLine) { line.isOpen = true }

  /// It is gone and will be opened again, at whichever endpoint is well.
  func interrupted(_ line: HeartbeatLine) {
    line.interrupted()
    touch(line)
  }

  /// etcd has ended the stream. True when what was under way is to be asked for elsewhere, on the same call.
  func survives(_ line: HeartbeatLine, _ code: GRPCStatus.Code, _ words: String) -> Bool {
    let fault = HeartbeatFault(code, words, requiresLeader: line.key.requiresLeader)
    guard fault == .loss else { return false }
    blame(line, atMost: Limits.heartbeatTries, code, words)
    return true
  }

  /// The call that carried the stream is over.
  func ended(_ line: HeartbeatLine, _ code: GRPCStatus.Code, _ words: String, _ now: Instant) {
    switch HeartbeatFault(code, words, requiresLeader: line.key.requiresLeader) {
    case .leader: line.forEachMember { end(line, $0, code, words) }
    case .token: refuse(line, code, words)
    case .beat:
      // Nothing was under way: then it was no heartbeat's fault, and may be the next stream's as well.
      if !line.hasFlying { delay(line, now) }
      blame(line, atMost: 0, code, words)
    case .loss:
      blame(line, atMost: Limits.heartbeatTries, code, words)
      delay(line, now)
    }
    line.upstream = nil
    line.interrupted()
    touch(line)
  }

  /// The heartbeat whose turn it was has gone wrong: when that has happened too often, those who wait for it are told.
  private func blame(_ line: HeartbeatLine, atMost tries: Int, _ code: GRPCStatus.Code, _ words: String) {
    guard line.blame() > tries else { return }
    while let member = line.blamed { end(line, member, code, words) }
  }

  /// Another token may do. When none is left, or many have been refused, those who hold them are told.
  private func refuse(_ line: HeartbeatLine, _ code: GRPCStatus.Code, _ words: String) {
    line.refuse(line.token)
    line.refusals += 1
    guard line.freshToken == nil || line.refusals >= Limits.heartbeatTokens else { return }
    line.refusals = 0
    line.forEachMember { if line[$0].isRefused { end(line, $0, code, words) } }
  }

  /// A stream that ends again and again is not opened again at once.
  private func delay(_ line: HeartbeatLine, _ now: Instant) {
    line.retryAt = now + line.pause
    let longer = max(Limits.heartbeatPause.nanoseconds, 2 * line.pause.nanoseconds)
    line.pause = min(Limits.heartbeatPauseAtMost, Instant.Span(nanoseconds: longer))
  }

  // MARK: The turn

  /// What is due leaves, streams are opened. `isEnding`: nobody will come any more.
  func settle(_ now: Instant, isEnding: Bool) {
    // Ends of streams touch lines again, without adding anything to do.
    var next = 0
    while next < touched.count {
      let line = touched[next]
      next += 1
      line.isTouched = false
      settle(line, now, isEnding)
    }
    touched.removeAll(keepingCapacity: true)
  }

  private func settle(_ line: HeartbeatLine, _ now: Instant, _ isEnding: Bool) {
    guard line.memberCount > 0 else {
      let since = line.emptySince ?? now
      line.emptySince = since
      if isEnding || now - since >= Limits.heartbeatGrace { close(line) }
      return
    }
    line.emptySince = nil
    if line.upstream == nil, now >= line.retryAt, !isEnding {
      // Whoever had a better token is gone: etcd has to say again what it thinks of those that are left.
      if line.freshToken == nil { line.forgetRefusals() }
      let token = line.freshToken ?? []
      line.token = token
      line.upstream = makeUpstream(line, token)
      if line.upstream == nil { delay(line, now) }
    }
    guard line.isOpen, line.hasDue else { return }
    if !line.hasFlying { line.progressed = now }
    line.upstream?.sendDue()
  }

  private func close(_ line: HeartbeatLine) {
    line.upstream?.letGo()
    line.upstream = nil
    line.isOpen = false
    lines[line.key] = nil
  }

  /// Looks at all lines, now and then.
  func look(_ now: Instant) {
    for line in lines.values {
      if line.memberCount == 0 || line.upstream == nil { touch(line) }
      if line.hasFlying, now - line.progressed >= Limits.heartbeatPatience { line.upstream?.lookAtEndpoint() }
    }
  }

  /// How soon that should be.
  var lookPause: Instant.Span? {
    guard !lines.isEmpty else { return nil }
    let isSoon = lines.values.contains { $0.upstream == nil && $0.memberCount > 0 }
    return isSoon ? Limits.heartbeatPause : Limits.heartbeatPatience
  }
}
