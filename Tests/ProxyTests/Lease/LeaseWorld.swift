import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// Clients that keep leases alive through a whole proxy, and etcds that count what comes.
///
/// Each heartbeat that an etcd gets has a number, which its answer carries as its seconds.
final class LeaseWorld {
  struct Arrival {
    let lease: Int64
    let at: UInt64
    let token: String?
    let requiresLeader: Bool
  }

  let world: ProxyWorld
  fileprivate(set) var arrivals: [Arrival] = []
  private(set) var clients: [LeaseClient] = []
  /// What the etcds end every stream with that is opened under this token.
  var refusedTokens: Set<String> = []

  init(
    seed: UInt64, endpoints: Int = 1, buffers: (Int, Int) = (64, 4096), isEager: Bool = false,
    _ options: GRPCProxyOptions = .init()
  ) {
    world = ProxyWorld(seed: seed, endpoints: endpoints, buffers: buffers, isEager: isEager, options)
    for endpoint in world.endpoints {
      endpoint.makePeer = { [unowned self, unowned endpoint] socket in LeaseServed(self, socket, endpoint) }
    }
  }

  func addClient(window: Int = 65_535, creditDelay: UInt64 = 0) -> LeaseClient {
    let socket = world.network.makeSocket(capacity: world.capacity)
    let client = LeaseClient(self, socket, window: window, creditDelay: creditDelay)
    clients.append(client)
    let source = Address.v4(0x0A01_0000 + UInt32(clients.count), port: 40_000)
    world.network.connect(socket, from: source, to: ProxyWorld.proxy) { code in
      if code == 0 { client.connected() } else { client.end() }
    }
    return client
  }

  /// Streams of heartbeats that the etcds have open.
  var streamsAtEtcd: Int { world.endpoints.reduce(0) { $0 + $1.openStreams } }

  func endStreams(at endpoint: Int, _ status: String, _ words: String, where leader: Bool? = nil) {
    world.endpoints[endpoint].forEachPeer { ($0 as? LeaseServed)?.endStreams(status, words, leader) }
  }

  func finish() {
    for client in clients { client.end() }
    world.finish()
  }
}

/// A client's stream, and what has become of its requests.
final class LeaseScript {
  fileprivate(set) var requests: [(lease: Int64, at: UInt64)] = []
  fileprivate(set) var answers: [LeaseKeepAliveResponse] = []
  fileprivate(set) var status: String?
  fileprivate(set) var words = ""
  fileprivate var stream: UInt32 = 0
  fileprivate var outbox: [UInt8] = []
  fileprivate var inbox: [UInt8] = []
  fileprivate var wantsEnd = false
  fileprivate var hasEnded = false

  var isAnswered: Bool { answers.count == requests.count }
  var state: String {
    "\(answers.count) of \(requests.count) answered, \(outbox.count) bytes unsent, status \(status ?? "none")"
  }
}

final class LeaseClient: ProxyPeer {
  private unowned let leases: LeaseWorld
  private(set) var scripts: [LeaseScript] = []
  private var open: [UInt32: LeaseScript] = [:]
  private let creditDelay: UInt64
  private var todo: [() -> Void] = []
  private var isConnected = false
  /// It takes no more bytes.
  var isStuck = false
  private var owed: [(UInt32, Int)] = []

  init(_ leases: LeaseWorld, _ socket: SimSocket, window: Int, creditDelay: UInt64) {
    self.leases = leases
    self.creditDelay = creditDelay
    var settings = HTTP2TestConnection.settings()
    settings.streamWindow = window
    settings.maxStreamWindow = max(window, 65_535)
    super.init(leases.world, .client, socket, settings)
  }

  /// Opens a stream; further fields are metadata.
  func open(_ metadata: [(String, String)] = []) -> LeaseScript {
    let script = LeaseScript()
    scripts.append(script)
    perform { [self] in
      let fields =
        [
          (":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.Lease/LeaseKeepAlive"),
          (":authority", "proxy"), ("content-type", "application/grpc"), ("te", "trailers"),
        ] + metadata
      guard let id = connection.session.open(headerList(fields), endStream: false, user: someHandle) else {
        script.status = "not opened"
        return
      }
      script.stream = id
      open[id] = script
    }
    return script
  }

  func beat(_ script: LeaseScript, _ lease: Int64) {
    var message = ByteBuffer(leases.world.core.pool)
    GRPCMessage.begin(&message)
    LeaseRequest(id: lease).encode(into: &message)
    GRPCMessage.end(&message, from: 0)
    let bytes = Array(message.bytes)
    perform { [self] in
      guard !script.wantsEnd else { return }
      script.requests.append((lease, leases.world.network.clock))
      script.outbox += bytes
      push(script)
    }
  }

  func say(_ script: LeaseScript, _ bytes: [UInt8]) {
    perform { [self] in
      script.outbox += bytes
      push(script)
    }
  }

  func halfClose(_ script: LeaseScript) {
    perform { [self] in
      script.wantsEnd = true
      push(script)
    }
  }

  func cancel(_ script: LeaseScript) {
    perform { [self] in
      connection.session.reset(script.stream, .cancel)
      finish(script.stream, "cancelled")
    }
  }

  private func perform(_ body: @escaping () -> Void) {
    todo.append(body)
    if isConnected { poke() }
  }

  func connected() {
    isConnected = true
    poke()
  }

  override func work() {
    let now = todo
    todo.removeAll()
    for one in now { one() }
  }

  private func push(_ script: LeaseScript) {
    guard open[script.stream] != nil, !script.hasEnded else { return }
    while !script.outbox.isEmpty || script.wantsEnd {
      let piece = min(script.outbox.count, 1 + leases.world.network.random.size(upTo: 400))
      let isAll = script.wantsEnd && piece == script.outbox.count
      let taken = connection.send(script.stream, Array(script.outbox.prefix(piece)), end: isAll)
      script.outbox.removeFirst(taken)
      if taken < piece { return }
      if isAll {
        script.hasEnded = true
        return
      }
    }
  }

  override func take(_ event: HTTP2Event) {
    switch event {
    case .headers(let stream, _, let end): if end { trailers(stream) }
    case .trailers(let stream, _): trailers(stream)
    case .data(let stream, _, let bytes, _):
      guard let script = open[stream] else { return }
      script.inbox += Array(bytes)
      readAnswers(script)
      credit(stream, bytes.count)
    case .writable(let stream, _): if let script = open[stream] { push(script) }
    case .reset(let stream, _, let code): finish(stream, "reset \(code)")
    case .unprocessed(let stream, _): finish(stream, "unprocessed")
    case .failed(_, let words): leases.world.fail("the proxy broke HTTP/2: \(words)")
    case .goAway, .settings, .pong: break
    }
  }

  private func credit(_ stream: UInt32, _ count: Int) {
    if isStuck { return owed.append((stream, count)) }
    if creditDelay == 0 { return connection.session.credit(stream, count) }
    world.network.after(creditDelay) { [self] in
      guard !isOver else { return }
      connection.session.credit(stream, count)
      poke()
    }
  }

  func wake() {
    isStuck = false
    perform { [self] in
      for (stream, count) in owed { connection.session.credit(stream, count) }
      owed.removeAll()
    }
  }

  private func readAnswers(_ script: LeaseScript) {
    while script.inbox.count >= 5 {
      let length = script.inbox[1..<5].reduce(0) { $0 << 8 | Int($1) }
      guard script.inbox.count >= 5 + length else { return }
      let message = Array(script.inbox[5..<5 + length])
      script.inbox.removeFirst(5 + length)
      guard let answer = message.withUnsafeBytes({ try? LeaseKeepAliveResponse($0) }) else {
        return leases.world.fail("an answer that cannot be read")
      }
      judge(answer, script)
    }
  }

  private func judge(_ answer: LeaseKeepAliveResponse, _ script: LeaseScript) {
    guard script.answers.count < script.requests.count else {
      return leases.world.fail("an answer that nobody asked for")
    }
    let request = script.requests[script.answers.count]
    script.answers.append(answer)
    guard answer.seconds > 0, answer.seconds <= Int64(leases.arrivals.count) else {
      return leases.world.fail("an answer of no heartbeat")
    }
    let arrival = leases.arrivals[Int(answer.seconds) - 1]
    if answer.id != request.lease || arrival.lease != request.lease {
      leases.world.fail("asked for \(request.lease), answered for \(answer.id), sent for \(arrival.lease)")
    }
    if arrival.at < request.at { leases.world.fail("the heartbeat came before it was asked for") }
  }

  private func trailers(_ stream: UInt32) {
    open[stream]?.words = value("grpc-message") ?? ""
    finish(stream, value("grpc-status") ?? "none")
  }

  private func finish(_ stream: UInt32, _ status: String) {
    guard let script = open.removeValue(forKey: stream) else { return }
    script.status = status
    if status == "0", !script.isAnswered {
      leases.world.fail("a stream ended well without all its answers: \(script.state)")
    }
  }

  override func ended() {
    for script in open.values { script.status = "connection ended" }
    open.removeAll()
  }
}

/// A connection at an etcd.
private final class LeaseServed: ProxyPeer {
  private final class Stream {
    let token: String?
    let requiresLeader: Bool
    var inbox: [UInt8] = []
    var outbox: [UInt8] = []
    var hasHead = false
    var isEnded = false

    init(_ token: String?, _ requiresLeader: Bool) {
      self.token = token
      self.requiresLeader = requiresLeader
    }
  }

  private let leases: LeaseWorld
  private unowned let host: ProxyEndpoint
  private var streams: [UInt32: Stream] = [:]

  init(_ leases: LeaseWorld, _ socket: SimSocket, _ host: ProxyEndpoint) {
    self.leases = leases
    self.host = host
    var settings = HTTP2TestConnection.settings()
    settings.streamWindow = host.window
    settings.maxStreamWindow = max(host.window, 65_535)
    super.init(leases.world, .server, socket, settings)
  }

  override var isStopped: Bool { host.isStopped }

  override func take(_ event: HTTP2Event) {
    switch event {
    case .headers(let stream, _, _): came(stream)
    case .data(let stream, _, let bytes, let end):
      connection.session.credit(stream, bytes.count)
      guard let found = streams[stream] else { return }
      found.inbox += Array(bytes)
      found.isEnded = found.isEnded || end
      serve(stream, found)
    case .trailers(let stream, _):
      streams[stream]?.isEnded = true
      if let found = streams[stream] { serve(stream, found) }
    case .writable(let stream, _): if let found = streams[stream] { push(stream, found) }
    case .reset(let stream, _, _): streams[stream] = nil
    case .failed(_, let words): leases.world.fail("the proxy broke HTTP/2 towards etcd: \(words)")
    default: break
    }
  }

  private func came(_ stream: UInt32) {
    let isStrict = value("hasleader") == "true"
    // A watch stream without watches tells those who asked for a leader that there is none.
    let isGuard = isStrict && value(":path") == "/etcdserverpb.Watch/Watch"
    if !isGuard, value(":path") != "/etcdserverpb.Lease/LeaseKeepAlive" {
      leases.world.fail("etcd got another call")
    }
    streams[stream] = Stream(value("token"), isStrict)
  }

  private func serve(_ stream: UInt32, _ found: Stream) {
    while !host.isSilent, found.inbox.count >= 5 {
      let length = found.inbox[1..<5].reduce(0) { $0 << 8 | Int($1) }
      guard found.inbox.count >= 5 + length else { break }
      if let token = found.token, leases.refusedTokens.contains(token) {
        return end(stream, "16", "etcdserver: invalid auth token")
      }
      let message = Array(found.inbox[5..<5 + length])
      found.inbox.removeFirst(5 + length)
      guard let request = message.withUnsafeBytes({ try? LeaseRequest($0) }) else {
        return leases.world.fail("etcd got a heartbeat that cannot be read")
      }
      leases.arrivals.append(
        LeaseWorld.Arrival(
          lease: request.id, at: leases.world.network.clock, token: found.token,
          requiresLeader: found.requiresLeader))
      answer(request.id, found)
    }
    push(stream, found)
  }

  private func answer(_ lease: Int64, _ found: Stream) {
    var output = ByteBuffer(connection.pool)
    GRPCMessage.begin(&output)
    LeaseKeepAliveResponse(
      header: ResponseHeader(clusterID: 1, memberID: 2, revision: 3, raftTerm: 4), id: lease,
      seconds: Int64(leases.arrivals.count)
    ).encode(into: &output)
    GRPCMessage.end(&output, from: 0)
    found.outbox += Array(output.bytes)
  }

  private func push(_ stream: UInt32, _ found: Stream) {
    if !found.outbox.isEmpty {
      if !found.hasHead {
        found.hasHead = true
        connection.session.sendHeaders(
          stream, headerList([(":status", "200"), ("content-type", "application/grpc")]), endStream: false)
      }
      let taken = connection.send(stream, found.outbox)
      found.outbox.removeFirst(taken)
    }
    if found.isEnded, found.outbox.isEmpty, found.inbox.isEmpty { end(stream, "0", "") }
  }

  private func end(_ stream: UInt32, _ status: String, _ words: String) {
    guard let found = streams.removeValue(forKey: stream) else { return }
    var fields = [("grpc-status", status), ("grpc-message", words)]
    if !found.hasHead { fields = [(":status", "200"), ("content-type", "application/grpc")] + fields }
    connection.session.sendHeaders(stream, headerList(fields), endStream: true)
    connection.session.reset(stream, .noError)
  }

  func endStreams(_ status: String, _ words: String, _ leader: Bool?) {
    for (stream, found) in streams where leader == nil || found.requiresLeader == leader {
      end(stream, status, words)
    }
    poke()
  }

  /// It speaks again.
  override func work() { for (stream, found) in streams { serve(stream, found) } }
}
