import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// A connection that an etcd has been asked for.
final class ProxyServed: ProxyPeer {
  private final class Answer {
    let call: ProxyCall
    var received = 0
    var sent = 0
    var headSent = false
    var isBlocked = false
    var hasEnd = false
    var misdeed: ProxyEndpoint.Misdeed?
    init(_ call: ProxyCall) { self.call = call }
  }

  private let host: ProxyEndpoint
  private var answers: [UInt32: Answer] = [:]

  init(_ world: ProxyWorld, _ socket: SimSocket, _ host: ProxyEndpoint) {
    self.host = host
    var settings = HTTP2TestConnection.settings()
    settings.streamWindow = host.window
    settings.maxStreamWindow = max(host.window, 65_535)
    settings.maxConcurrentStreams = host.streams
    super.init(world, .server, socket, settings)
  }

  override var isStopped: Bool { host.isStopped }

  override func take(_ event: HTTP2Event) {
    switch event {
    case .headers(let stream, _, let end): came(stream, end)
    case .data(let stream, _, let bytes, let end):
      guard let answer = answers[stream] else { return connection.session.credit(stream, bytes.count) }
      if Array(bytes) != answer.call.bytes(request: true, at: answer.received, count: bytes.count) {
        world.fail("wrong bytes at \(answer.received) of a request: \(answer.call.state)")
      }
      answer.received += bytes.count
      connection.session.credit(stream, bytes.count)
      if end { requestEnded(stream, answer) }
      serve(stream, answer)
    case .trailers(let stream, _): if let answer = answers[stream] { requestEnded(stream, answer) }
    case .writable(let stream, _): if let answer = answers[stream] { serve(stream, answer) }
    case .reset(let stream, _, _): answers[stream] = nil
    case .failed(_, let words): world.fail("the proxy broke HTTP/2 towards etcd: \(words)")
    default: break
    }
  }

  private func came(_ stream: UInt32, _ end: Bool) {
    // The proxy's own, for which nobody here has an answer.
    if value("x-call") == nil, value("user-agent") == "ringway" { return }
    guard let text = value("x-call"), let id = Int(text), let call = world.calls[id] else {
      return world.fail("etcd got a call of nobody")
    }
    if value(":path") != call.path { world.fail("etcd got \(value(":path") ?? "no path") for \(call.state)") }
    let answer = Answer(call)
    answer.misdeed = host.nextMisdeed(&world.network.random)
    answers[stream] = answer
    switch answer.misdeed {
    case .refuses:
      connection.session.reset(stream, .refusedStream)
      answers[stream] = nil
    case .failsAtOnce: fail(stream)
    default: if end { requestEnded(stream, answer) }
    }
  }

  private func fail(_ stream: UInt32) {
    connection.session.sendHeaders(
      stream,
      headerList([
        (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14"),
        ("grpc-message", "no"),
      ]),
      endStream: true)
    // As grpc-go does it when the request has not ended, and as others need not.
    if host.only == nil { connection.session.reset(stream, .noError) }
    answers[stream] = nil
  }

  private func requestEnded(_ stream: UInt32, _ answer: Answer) {
    answer.hasEnd = true
    if answer.received != answer.call.total(request: true) {
      world.fail("a request was cut and looks whole: \(answer.call.state)")
    }
    answer.call.acted += 1
    if answer.call.shape == .write, answer.call.acted > 1 {
      world.fail("a write was made twice: \(answer.call.state)")
    }
    if answer.misdeed == .failsLate { return fail(stream) }
    serve(stream, answer)
  }

  /// A stream of both directions is answered message by message, anything else when it has been asked in full.
  private func serve(_ stream: UInt32, _ answer: Answer) {
    let call = answer.call
    let perMessage = 5 + call.requestSize
    let due =
      call.shape == .watch ? answer.received / perMessage * (5 + call.answerSize) : call.total(request: false)
    guard answer.hasEnd || call.shape == .watch, due > 0, !host.isSilent else { return }
    if answer.misdeed == .dies { return world.network.after(1) { [self] in end(reset: true) } }
    if !answer.headSent {
      answer.headSent = true
      connection.session.sendHeaders(
        stream, headerList([(":status", "200"), ("content-type", "application/grpc")]), endStream: false)
    }
    while answer.sent < due {
      let piece = min(due - answer.sent, 50_000)
      let taken = connection.send(stream, call.bytes(request: false, at: answer.sent, count: piece))
      answer.sent += taken
      if answer.misdeed == .diesWithin, answer.sent > 0 {
        return world.network.after(1) { [self] in end(reset: true) }
      }
      if taken < piece { return }
    }
    guard answer.hasEnd, answer.sent == call.total(request: false) else { return }
    connection.session.sendHeaders(
      stream, headerList([("grpc-status", "0"), ("grpc-message", "")]), endStream: true)
    answers[stream] = nil
  }

  override func work() {
    if host.saysGoAway, !connection.session.goAwaySent {
      connection.session.goAway(.noError, "bye", final: true)
      world.network.after(50_000_000) { [self] in end() }
    }
  }
}

/// An etcd, or several lives of one.
final class ProxyEndpoint {
  enum Misdeed: CaseIterable { case refuses, failsAtOnce, failsLate, dies, diesWithin }

  unowned let world: ProxyWorld
  let address: Address
  var window = 65_535
  var streams: UInt32 = 1000
  var misdeeds = 0
  var isStopped = false
  /// It takes calls and answers none.
  var isSilent = false
  /// What it does with every call.
  var only: Misdeed?
  var saysGoAway = false
  private var listener: SimListener?
  /// Makes other peers than those that serve scripted calls.
  var makePeer: ((SimSocket) -> ProxyPeer)?
  private var served: [ProxyPeer] = []

  init(_ world: ProxyWorld, _ address: Address) {
    self.world = world
    self.address = address
  }

  func nextMisdeed(_ random: inout SimRandom) -> Misdeed? {
    if let only { return only }
    return random.chance(misdeeds) ? random.pick(Misdeed.allCases) : nil
  }

  func up() {
    guard listener == nil else { return }
    (isStopped, saysGoAway) = (false, false)
    let made = world.network.listen(address, backlog: 64)
    made.changed = [{ [unowned self] in accept() }]
    listener = made
  }

  func down() {
    if let listener { world.network.stopListening(listener) }
    listener = nil
    for peer in served { peer.end(reset: true) }
    served.removeAll()
  }

  /// A frame that no peer may send, on every connection.
  func breakHTTP2() {
    for peer in served where !peer.isOver { _ = peer.socket.send([0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]) }
  }

  /// Calls that its connections have open.
  var openStreams: Int { served.reduce(0) { $0 + ($1.isOver ? 0 : $1.connection.session.openStreams) } }

  func forEachPeer(_ body: (ProxyPeer) -> Void) {
    for peer in served where !peer.isOver { body(peer) }
  }

  func goAway() {
    saysGoAway = true
    for peer in served { peer.poke() }
    world.network.after(100_000_000) { [self] in saysGoAway = false }
  }

  func resume() {
    isStopped = false
    for peer in served { peer.poke() }
    accept()
  }

  private func accept() {
    world.network.after(1_000) { [self] in
      while !isStopped, let socket = listener?.accept() {
        let peer = makePeer?(socket) ?? ProxyServed(world, socket, self)
        served.append(peer)
        peer.poke()
      }
    }
  }
}
