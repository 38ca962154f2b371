import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

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

  init(
    _ world: ProxyWorld, _ socket: SimSocket, _ calls: [ProxyCall], atOnce: Int, creditDelay: UInt64,
    window: Int
  ) {
    self.calls = calls
    self.atOnce = atOnce
    self.creditDelay = creditDelay
    var settings = HTTP2TestConnection.settings()
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
    // What is said on it is noise: it is to be passed on as it is.
    if call.shape == .watch { fields.append(("ringway-bypass", "all")) }
    if let timeout = call.timeout { fields.append(("grpc-timeout", "\(timeout / 1000)u")) }
    guard let stream = connection.session.open(headerList(fields), endStream: false, user: someHandle) else {
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
