import Reactor
import Simulation
import Testing

@testable import Proxy

/// What both ends of a simulated connection agree on: how long each body is and which byte stands where.
final class Plan {
  let seed: UInt64
  /// Streams that somebody reset.
  var killed: Set<UInt32> = []
  var problems: [String] = []
  let biggest: Int

  init(seed: UInt64, biggest: Int) {
    self.seed = seed
    self.biggest = biggest
  }

  func size(_ stream: UInt32, request: Bool) -> Int {
    var random = SimRandom(seed: seed &* 1_000_003 &+ UInt64(stream) &* 2 &+ (request ? 1 : 0))
    return random.chance(150) ? 0 : random.size(upTo: biggest)
  }

  func bytes(_ stream: UInt32, request: Bool, at offset: Int, count: Int) -> [UInt8] {

    SimStream.bytes(of: UInt64(stream) &* 2 &+ (request ? 1 : 0), at: SimStream.nameBytes + offset, count: count)
  }

  func problem(_ text: String) { if problems.count < 5 { problems.append(text) } }
}

/// One call as one end sees it.
struct Call {
  var sent = 0
  var received = 0
  var headSent = false
  var headSeen = false
  var sentEnd = false
  var seenEnd = false
  var isBlocked = false
  /// Received and not given back.
  var held = 0
}

/// One end of a simulated connection.
protocol Party: AnyObject {
  var isFailed: Bool { get }
  func take(_ bytes: [UInt8])
  /// Up to `limit` bytes for the other end.
  func give(_ limit: Int) -> [UInt8]
  /// Does something at random; opens and resets streams only while `lively`. True when it did something.
  func act(_ random: inout SimRandom, lively: Bool) -> Bool
  /// Streams that are not over.
  var open: Int { get }
  func check()
}

/// Our session with an owner that behaves at random.
final class OurParty: Party {
  let connection: Connection
  let role: HTTP2Role
  let plan: Plan
  var calls: [UInt32: Call] = [:]
  var done: Set<UInt32> = []
  var pings = 0
  private let mostStreams: Int

  init(_ role: HTTP2Role, _ plan: Plan, _ settings: HTTP2Settings, streams: Int, pool: BlockPool) {
    self.role = role
    self.plan = plan
    mostStreams = streams
    connection = Connection(role, settings, pool: pool)
  }

  var isFailed: Bool { connection.session.isFailed }
  var open: Int { calls.count }
  private var isClient: Bool { role == .client }

  func take(_ bytes: [UInt8]) { connection.feed(bytes, note) }

  func give(_ limit: Int) -> [UInt8] {
    let bytes = Array(connection.session.output.bytes.prefix(limit))
    connection.session.output.consume(bytes.count)
    connection.session.outputDrained()
    connection.feed([], note)
    return bytes
  }

  private func note(_ event: HTTP2Event) {
    switch event {
    case .headers(let id, let user, let end):
      if isClient {
        if user?.slot != id { plan.problem("stream \(id) came back as \(String(describing: user))") }
      } else {
        calls[id] = Call()
        connection.session.setUser(id, Handle(slot: id, generation: 1))
      }
      calls[id]?.headSeen = true
      if end { noteEnd(id) }
    case .trailers(let id, let user):
      if user?.slot != id { plan.problem("stream \(id) came back as \(String(describing: user))") }
      noteEnd(id)
    case .data(let id, _, let bytes, let end):
      guard let call = calls[id] else { return plan.problem("data of stream \(id), which is over") }
      if Array(bytes) != plan.bytes(id, request: !isClient, at: call.received, count: bytes.count) {
        plan.problem("stream \(id) is wrong at \(call.received)")
      }
      calls[id]?.received += bytes.count
      calls[id]?.held += bytes.count
      if end { noteEnd(id) }
    case .reset(let id, _, let code):
      if !plan.killed.contains(id) { plan.problem("stream \(id) was reset: \(code)") }
      calls[id] = nil
    case .writable(let id, _):
      if calls[id]?.isBlocked != true { plan.problem("stream \(id) is writable unasked") }
      calls[id]?.isBlocked = false
      _ = write(id, 1 << 20)
    case .failed(let code, let text): plan.problem("\(role) failed: \(code) \(text)")
    case .pong: pings -= 1
    case .settings, .goAway, .unprocessed: break
    }
  }

  private func noteEnd(_ id: UInt32) {
    if calls[id]?.received != plan.size(id, request: !isClient) {
      plan.problem("stream \(id) ended at \(calls[id]?.received ?? -1) of \(plan.size(id, request: !isClient))")
    }
    calls[id]?.seenEnd = true
    finish(id)
  }

  private func finish(_ id: UInt32) {
    guard let call = calls[id], call.sentEnd, call.seenEnd else { return }
    calls[id] = nil
    done.insert(id)
  }

  func act(_ random: inout SimRandom, lively: Bool) -> Bool {
    if isClient, lively, calls.count < mostStreams, random.chance(300), openCall() { return true }
    if lively, connection.session.stage != .preface, random.chance(20) {
      connection.session.ping(random.next())
      pings += 1
    }
    guard let id = calls.keys.sorted().dropFirst(random.below(calls.count)).first, let call = calls[id] else {
      return false
    }
    if lively, random.chance(30) {
      plan.killed.insert(id)
      connection.session.reset(id, .cancel)
      calls[id] = nil
      return true
    }
    if call.held > 0, random.chance(500) || !lively {
      let amount = lively ? random.size(upTo: call.held) : call.held
      calls[id]?.held -= amount
      connection.session.credit(id, amount)
      return true
    }
    return !isClient && !call.headSent ? sendHead(id) : write(id, random.size(upTo: 40_000))
  }

  private func openCall() -> Bool {
    let next = connection.session.nextStream
    let size = plan.size(next, request: true)
    let list = list(request + [("grpc-timeout", "\(next)m"), ("token", "secret.\(next % 3)")])
    guard connection.session.open(list, endStream: size == 0, user: Handle(slot: next, generation: 1)) == next
    else { return false }
    calls[next] = Call()
    calls[next]?.sentEnd = size == 0
    return true
  }

  private func sendHead(_ id: UInt32) -> Bool {
    if id % 4 == 1 {
      connection.session.sendResponseHead(id)
    } else {
      connection.session.sendHeaders(id, list(response + [("x-stream", "\(id)")]), endStream: false)
    }
    calls[id]?.headSent = true
    return true
  }

  private func write(_ id: UInt32, _ limit: Int) -> Bool {
    guard let call = calls[id], !call.sentEnd, !call.isBlocked else { return false }
    let total = plan.size(id, request: isClient)
    if !isClient, call.sent == total { return sendTrailers(id, call) }
    let bytes = plan.bytes(id, request: isClient, at: call.sent, count: min(limit, total - call.sent))
    let ends = isClient && call.sent + bytes.count == total
    let taken = connection.send(id, bytes, end: ends)
    calls[id]?.sent += taken
    calls[id]?.isBlocked = taken < bytes.count
    if ends, taken == bytes.count {
      calls[id]?.sentEnd = true
      finish(id)
    }
    return true
  }

  private func sendTrailers(_ id: UInt32, _ call: Call) -> Bool {
    guard call.seenEnd else { return false }
    if id % 4 == 1 {
      connection.session.sendTrailersOK(id)
    } else {
      let message = String(repeating: "m", count: id % 16 == 7 ? 40_000 : 5)
      connection.session.sendHeaders(
        id, list([("grpc-status", "5"), ("grpc-message", message)]), endStream: true)
    }
    calls[id]?.sentEnd = true
    finish(id)
    return true
  }

  func check() {
    if !calls.isEmpty { plan.problem("\(role) still has \(calls)") }
    if connection.session.openStreams != 0 { plan.problem("streams are left") }
    if connection.session.hasWaitingStreams { plan.problem("a stream waits that is gone") }
    let (window, due) = (connection.session.receiveWindow, connection.session.creditDue)
    if window + due != connection.session.receiveSize { plan.problem("credit was lost") }
    if pings != 0 { plan.problem("\(pings) pings without answer") }
    if !connection.session.isSettled { plan.problem("settings were not acknowledged") }
  }
}

extension Connection {
  func feed(_ bytes: [UInt8], _ note: (HTTP2Event) -> Void) {
    bytes.withUnsafeBytes { bytes in
      if bytes.count > 0 { session.receive(bytes) }
      while let event = session.next(now) { note(event) }
    }
  }
}

/// Lets two parties talk over pipes that cut the bytes anywhere.
func converse(_ first: any Party, _ second: any Party, _ plan: Plan, steps: Int) {
  var random = SimRandom(seed: plan.seed)
  var pipes = (ByteFIFO(), ByteFIFO())
  func move(_ limit: Int) {
    pipes.0.append(first.give(limit))
    pipes.1.append(second.give(limit))
    let (toSecond, toFirst) = (pipes.0.take(limit), pipes.1.take(limit))
    if !toSecond.isEmpty { second.take(toSecond) }
    if !toFirst.isEmpty { first.take(toFirst) }
  }
  for _ in 0..<steps where plan.problems.isEmpty {
    switch random.below(6) {
    case 0: pipes.0.append(first.give(random.size(upTo: 70_000)))
    case 1: pipes.1.append(second.give(random.size(upTo: 70_000)))
    case 2: if !pipes.0.isEmpty { second.take(pipes.0.take(random.size(upTo: 70_000))) }
    case 3: if !pipes.1.isEmpty { first.take(pipes.1.take(random.size(upTo: 70_000))) }
    case 4: _ = first.act(&random, lively: true)
    default: _ = second.act(&random, lively: true)
    }
  }
  var rounds = 0
  while plan.problems.isEmpty, rounds < 20_000, first.open + second.open > 0 || rounds < 20 {
    for _ in 0..<5 {
      _ = first.act(&random, lively: false)
      _ = second.act(&random, lively: false)
    }
    move(1 << 20)
    rounds += 1
  }
  guard plan.problems.isEmpty else { return }
  first.check()
  second.check()
}
