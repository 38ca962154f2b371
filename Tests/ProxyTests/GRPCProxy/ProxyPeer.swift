import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// A call of a scripted client: what both ends say, and what became of it.
final class ProxyCall {
  enum Shape: CaseIterable { case read, write, watch, download, unknown }

  let id: Int
  let shape: Shape
  let requestSize: Int
  let answerSize: Int
  /// Messages each way; a unary call has one.
  let messages: Int
  var timeout: UInt64?
  var cancelsAt = Int.max

  // The client's side.
  var stream: UInt32 = 0
  var sent = 0
  var isBlocked = false
  var received = 0
  var status: String?
  var ends = 0
  var isCancelled = false
  var began: UInt64 = 0
  // The endpoints' side.
  var acted = 0

  init(id: Int, shape: Shape, requestSize: Int, answerSize: Int, messages: Int) {
    self.id = id
    self.shape = shape
    self.requestSize = requestSize
    self.answerSize = answerSize
    self.messages = messages
  }

  var path: String {
    switch shape {
    case .read: "/etcdserverpb.KV/Range"
    case .write: "/etcdserverpb.KV/Put"
    case .watch: "/etcdserverpb.Watch/Watch"
    case .download: "/etcdserverpb.Maintenance/Snapshot"
    case .unknown: "/future.Service/Method"
    }
  }

  /// Bytes of one direction, prefixes included.
  func total(request: Bool) -> Int { messages * (5 + (request ? requestSize : answerSize)) }

  /// The bytes of one direction from `offset` on.
  func bytes(request: Bool, at offset: Int, count: Int) -> [UInt8] {
    let size = request ? requestSize : answerSize
    let noise = SimStream.bytes(of: UInt64(id) * 2 + (request ? 1 : 0), at: 8, count: 60_000)
    return (offset..<offset + count).map { place in
      switch place % (5 + size) {
      case 0: 0
      case let index where index < 5: UInt8(truncatingIfNeeded: size >> (8 * (4 - index)))
      default: noise[place % noise.count]
      }
    }
  }

  var state: String {
    "call \(id) \(shape) \(requestSize)/\(answerSize)x\(messages): sent \(sent), received \(received), acted \(acted), "
      + "ends \(ends), \(status ?? "no status")\(isCancelled ? ", cancelled" : "")"
  }
}

/// One end of a TCP connection that speaks HTTP/2 with the same machine as the proxy.
class ProxyPeer {
  unowned let world: ProxyWorld
  let socket: SimSocket
  let connection: Connection
  private var isPoked = false
  private(set) var isOver = false

  init(_ world: ProxyWorld, _ role: HTTP2Role, _ socket: SimSocket, _ settings: HTTP2Settings) {
    self.world = world
    self.socket = socket
    connection = Connection(role, settings)
    socket.changed = { [unowned self] in poke() }
  }

  var isStopped: Bool { false }

  var state: String {
    "peer \(isOver ? "over" : "open") socket arrived \(socket.arrived.count) fin \(socket.finArrived) dead \(socket.isDead), "
      + "streams \(connection.session.openStreams), output \(connection.session.output.count), "
      + "input \(connection.session.stage) \(connection.session.left), window \(connection.session.sendWindow)"
  }

  func poke(after delay: UInt64 = 1_000) {
    guard !isPoked, !isOver else { return }
    isPoked = true
    world.network.after(delay) { [self] in
      isPoked = false
      if !isStopped, !isOver { act() }
    }
  }

  private func act() {
    connection.now = world.network.now
    while !socket.isClosed {
      let (result, bytes) = socket.receive(1 + world.network.random.below(20_000))
      if result == -Int(EAGAIN) { break }
      guard result > 0 else { return end() }
      bytes.withUnsafeBytes { bytes in
        connection.session.receive(bytes)
        pull()
      }
    }
    guard !isOver else { return }
    work()
    write()
  }

  private func pull() {
    while let event = connection.session.next(world.network.now) { take(event) }
  }

  func write() {
    while !connection.session.output.isEmpty, !isOver {
      let count = socket.send(Array(connection.session.output.bytes.prefix(60_000)))
      if count == -Int(EAGAIN) { return }
      guard count > 0 else { return end() }
      connection.session.output.consume(count)
      connection.session.outputDrained()
      pull()
    }
  }

  func end(reset: Bool = false) {
    guard !isOver else { return }
    isOver = true
    if reset { socket.reset() } else { socket.close() }
    ended()
  }

  func take(_ event: HTTP2Event) {}
  func work() {}
  func ended() {}

  func value(_ name: String) -> String? {
    let list = connection.context.received
    for position in 0..<list.count where text(list[position].name) == name { return text(list[position].value) }
    return nil
  }
}

/// A client with calls.
final class ProxyClient: ProxyPeer {
  private var calls: [ProxyCall]
  private var open: [UInt32: ProxyCall] = [:]
  private var next = 0
  private let atOnce: Int
  /// Reads an answer's bytes this slowly: credit comes back so much later.
  private let creditDelay: UInt64
  private var mayOpen = true
  /// It has sent garbage, to which the answer may be HTTP/1.1.
  private var isGarbled = false

  init(_ world: ProxyWorld, _ socket: SimSocket, _ calls: [ProxyCall], atOnce: Int, creditDelay: UInt64, window: Int) {
    self.calls = calls
    self.atOnce = atOnce
    self.creditDelay = creditDelay
    var settings = Connection.settings()
    settings.streamWindow = window
    settings.maxStreamWindow = max(window, 65_535)
    super.init(world, .client, socket, settings)
  }

  /// A connection that an injected fault has hit may have died without this end's knowing.
  var isDone: Bool { calls.allSatisfy { $0.ends > 0 } || isOver || socket.isDisturbed }
  /// Calls that should have ended and have not.
  var overdue: [ProxyCall] { isOver || socket.isDisturbed ? [] : calls.filter { $0.ends == 0 } }

  override func work() {
    while mayOpen, next < calls.count, open.count < atOnce, connection.session.canOpen { begin(calls[next]) }
    if calls.allSatisfy({ $0.ends > 0 }) || !mayOpen && open.isEmpty { end() }
  }

  private func begin(_ call: ProxyCall) {
    next += 1
    call.began = world.network.clock
    var fields = [
      (":method", "POST"), (":scheme", "http"), (":path", call.path), (":authority", "proxy"),
      ("content-type", "application/grpc"), ("te", "trailers"), ("x-call", "\(call.id)"),
    ]
    if let timeout = call.timeout { fields.append(("grpc-timeout", "\(timeout / 1000)u")) }
    guard let stream = connection.session.open(list(fields), endStream: false, user: someone) else {
      return world.fail("a client could not open a stream")
    }
    call.stream = stream
    open[stream] = call
    push(call)
  }

  private func push(_ call: ProxyCall) {
    let total = call.total(request: true)
    call.isBlocked = false
    while !call.isBlocked, open[call.stream] != nil {
      let piece = min(total - call.sent, 1 + world.network.random.size(upTo: 40_000))
      let taken = connection.send(
        call.stream, call.bytes(request: true, at: call.sent, count: piece), end: call.sent + piece == total)
      call.sent += taken
      call.isBlocked = taken < piece
      if call.sent == total, taken == piece { return }
    }
  }

  override func take(_ event: HTTP2Event) {
    switch event {
    case .headers(let stream, _, let end):
      if end { finish(stream, value("grpc-status") ?? "none") }
    case .trailers(let stream, _): finish(stream, value("grpc-status") ?? "none")
    case .data(let stream, _, let bytes, let end):
      guard let call = open[stream] else { return }
      if Array(bytes) != call.bytes(request: false, at: call.received, count: bytes.count) {
        world.fail("wrong bytes at \(call.received) of an answer: \(call.state)")
      }
      call.received += bytes.count
      let count = bytes.count
      if end { finish(stream, "data ended the stream") }
      if call.received >= call.cancelsAt {
        call.isCancelled = true
        connection.session.reset(stream, .cancel)
        return finish(stream, "cancelled")
      }
      if creditDelay == 0 { return connection.session.credit(stream, count) }
      world.network.after(creditDelay) { [self] in
        guard !isOver else { return }
        connection.session.credit(stream, count)
        poke()
      }
    case .writable(let stream, _): if let call = open[stream] { push(call) }
    case .reset(let stream, _, let code): finish(stream, "reset \(code)")
    case .unprocessed(let stream, _): finish(stream, "unprocessed")
    case .goAway: mayOpen = false
    case .failed(_, let words): if !isGarbled { world.fail("the proxy broke HTTP/2: \(words)") }
    case .settings, .pong: break
    }
  }

  private func finish(_ stream: UInt32, _ status: String) {
    guard let call = open.removeValue(forKey: stream) else { return }
    call.ends += 1
    call.status = status
    world.ended(call)
    poke()
  }

  override func ended() {
    for call in open.values {
      call.ends += 1
      call.status = "connection ended"
    }
    open.removeAll()
  }

  /// A frame that no peer may send.
  func breakHTTP2() {
    let whole: [UInt8] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    isGarbled = true
    _ = socket.send(whole)
  }

  /// Cancels something, or everything.
  func misbehave(_ kind: Int) {
    guard !isOver else { return }
    switch kind {
    case 0: end(reset: true)
    case 1: end()
    case 2:
      // In the middle of a frame it only shifts what follows, so that nobody may ever answer.
      isGarbled = true
      _ = socket.send([0, 0, 0, 1, 0, 0, 0, 0, 1])
      world.network.after(1_000_000_000) { [self] in end() }
    default:
      guard let (stream, call) = open.first else { return }
      call.isCancelled = true
      connection.session.reset(stream, .cancel)
      finish(stream, "cancelled")
      poke()
    }
  }
}

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
    var settings = Connection.settings()
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
      list([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14"), ("grpc-message", "no")]),
      endStream: true)
    // As grpc-go does it when the request has not ended.
    connection.session.reset(stream, .noError)
    answers[stream] = nil
  }

  private func requestEnded(_ stream: UInt32, _ answer: Answer) {
    answer.hasEnd = true
    if answer.received != answer.call.total(request: true) {
      world.fail("a request was cut and looks whole: \(answer.call.state)")
    }
    answer.call.acted += 1
    if answer.call.shape == .write, answer.call.acted > 1 { world.fail("a write was made twice: \(answer.call.state)") }
    if answer.misdeed == .failsLate { return fail(stream) }
    serve(stream, answer)
  }

  /// A stream of both directions is answered message by message, anything else when it has been asked in full.
  private func serve(_ stream: UInt32, _ answer: Answer) {
    let call = answer.call
    let perMessage = 5 + call.requestSize
    let due = call.shape == .watch ? answer.received / perMessage * (5 + call.answerSize) : call.total(request: false)
    guard answer.hasEnd || call.shape == .watch, due > 0, !host.isSilent else { return }
    if answer.misdeed == .dies { return world.network.after(1) { [self] in end(reset: true) } }
    if !answer.headSent {
      answer.headSent = true
      connection.session.sendHeaders(
        stream, list([(":status", "200"), ("content-type", "application/grpc")]), endStream: false)
    }
    while answer.sent < due {
      let piece = min(due - answer.sent, 50_000)
      let taken = connection.send(stream, call.bytes(request: false, at: answer.sent, count: piece))
      answer.sent += taken
      if answer.misdeed == .diesWithin, answer.sent > 0 { return world.network.after(1) { [self] in end(reset: true) } }
      if taken < piece { return }
    }
    guard answer.hasEnd, answer.sent == call.total(request: false) else { return }
    connection.session.sendHeaders(stream, list([("grpc-status", "0"), ("grpc-message", "")]), endStream: true)
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
  private var served: [ProxyServed] = []

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
        let peer = ProxyServed(world, socket, self)
        served.append(peer)
        peer.poke()
      }
    }
  }
}
