internal import Glibc
internal import Reactor

/// What the gRPC proxy does on one core: clients, calls, and connections to etcd.
///
/// The files beside this one hold its parts: `+Clients`, `+Requests` and `+Pages` face the clients, `+Dispatch` finds a call its
/// connection, `+Upstream` and `+Answers` face etcd, `+End` is how things end. Here is the turn.
///
/// Two rules keep the parts apart. Whoever edits a client's connection may edit calls and connections to etcd, and the other
/// way round, but never a second element of the same kind. And a call that has to begin (again) is only noted: it is
/// dispatched at the end of the turn, when nothing is under edit.
final class ProxyCore: Core, Acceptor.Host {
  /// Who a completion belongs to.
  enum Owner {
    static let client: UInt8 = 1
    static let upstream: UInt8 = 2
    static let listener: UInt8 = 3
    static let core: UInt8 = 4
    static let call: UInt8 = 5
  }

  /// A connection's operations.
  enum Operation {
    static let receive: UInt8 = 0
    static let send: UInt8 = 1
    static let room: UInt8 = 2
    static let connect: UInt8 = 3
  }

  /// The listener of `--metrics-addr`, which one core has.
  struct PagesListener: Sendable {
    let descriptor: Int32
    let isTLS: Bool
  }

  /// The core's own timers.
  enum CoreTimer {
    static let sweep: UInt8 = 0
    static let retry: UInt8 = 1
    static let patience: UInt8 = 2
    static let watch: UInt8 = 3
    static let heartbeats: UInt8 = 4
    static let proofs: UInt8 = 6
    static let patienceOfReads: UInt8 = 5
    static let rest: UInt8 = 7
    static let leaders: UInt8 = 8
  }

  /// A connection to be made to an endpoint's next address, noted while the last one is under edit.
  struct NextAddress {
    let endpoint: Endpoint
    let purpose: Purpose
    let address: Int
  }

  let shared: ProxyShared
  let options: GRPCProxyOptions
  let log: Log
  let pool = BlockPool()
  let clients: Slab<ClientConnection>
  let upstreams: Slab<UpstreamConnection>
  let calls: Slab<Call>
  let clientSide: HTTP2Context
  let upstreamSide: HTTP2Context
  /// Decrypted bytes of the connection that is being read.
  var scratch: ByteBuffer
  /// Fields about to be sent.
  let outgoing = HeaderList()
  var table: EndpointTable
  var serverTLS: TLSServerContext?
  var clientTLS: TLSClientContext?
  var members: MemberAnswer?
  /// The listener of `--metrics-addr` comes last.
  private(set) lazy var acceptor = Acceptor(
    host: self, owner: Owner.listener, listeners: listeners + (pages.map { [$0.descriptor] } ?? []))
  let listeners: [Int32]
  let pages: PagesListener?
  /// Connections to that listener.
  var pageVisitors = 0
  let requestLimit: Int
  let answerLimit: Int
  var gate = Gate()

  /// Connections with something to send, or to end.
  var touchedClients: [Handle] = []
  var touchedUpstreams: [Handle] = []
  /// Calls to be given a connection before the turn ends.
  var starting: [Handle] = []
  /// Own calls with something to say, and those that were let go of.
  var pushing: [Handle] = []
  var abandoned: [Handle] = []
  /// The last client is gone.
  var isEnding = false
  /// The calls that end now end because their client's connection does.
  var isLosingClient = false
  var outbox: CoreOutbox
  private(set) lazy var watchHome = WatchHome(self)
  private(set) lazy var watch = WatchHub(self, watchers)
  private let watchers: Slab<Watcher>
  /// Bytes that a group may keep of what it has brought.
  private(set) var historyLimit = Limits.historyBytesAGroup
  private var watchTimer = TimerWheel.Timer.none
  private var watchDue = Instant.distantFuture
  private var watchesLookedThrough = Instant(nanoseconds: 0)
  var principals: PrincipalCache
  var acceptedTokens = AcceptedTokens()
  private(set) lazy var heartbeats = HeartbeatDesk(self)
  private(set) lazy var leaders = LeaderGuards(self)
  let reads: Reads
  /// Calls for which there was none.
  var waiting: [Handle] = []
  var routes: Routes
  /// A call has found no endpoint that should be tried now: those that wait look again when one should.
  var wantsRetry = false
  var nextAddresses: [NextAddress] = []
  /// Connections whose receive ran out of buffers.
  var starvedClients: [Handle] = []
  var starvedUpstreams: [Handle] = []
  /// Connections that are not listened to for a moment.
  var resting: [Handle] = []
  /// Connections with nothing to send but acknowledgements of pings, each at most once a wait or a few times.
  private var patientClients: [Handle] = []
  private var patientUpstreams: [Handle] = []
  private var patientTimer = TimerWheel.Timer.none
  private static let patience = Instant.Span.milliseconds(10)
  var sweepTimer = TimerWheel.Timer.none
  var retryTimer = TimerWheel.Timer.none
  var retryDue = Instant.distantFuture
  var drainDeadline: Instant?
  /// When it was last looked who holds many bytes.
  var weighed = Instant(nanoseconds: 0)
  var random: SplitMix

  init(
    index: Int, kernel: Kernel, shared: ProxyShared, table: EndpointTable, listeners: [Int32],
    pages: PagesListener?, tls: (server: TLSServerContext?, client: TLSClientContext?)
  ) throws(SystemError) {
    self.shared = shared
    options = shared.options
    log = shared.log
    self.table = table
    self.listeners = listeners
    self.pages = pages
    (serverTLS, clientTLS) = tls
    requestLimit = options.sendLimit ?? .max
    answerLimit = options.receiveLimit
    clients = try Slab(capacity: Limits.connectionsACore)
    upstreams = try Slab(capacity: Limits.upstreamsACore)
    calls = try Slab(capacity: Limits.callsACore)
    watchers = try Slab(capacity: Limits.watchersACore)
    clientSide = HTTP2Context(settings: shared.options.clientSettings, pool: pool)
    upstreamSide = HTTP2Context(settings: GRPCProxyOptions.upstreamSettings, pool: pool)
    scratch = ByteBuffer(pool)
    routes = Routes(slots: Limits.endpoints)
    principals = PrincipalCache(shared.principals)
    reads = try Reads(shared, core: index, seed: kernel.now.nanoseconds, pool)
    outbox = CoreOutbox(cores: shared.group.links.count)
    random = SplitMix(seed: kernel.now.nanoseconds &+ UInt64(index))
    members = MemberAnswer(ownOf: options)
    super.init(index: index, kernel: kernel)
    reads.attach(self)
    acceptor.start()
  }

  // MARK: The turn

  override func complete(_ completion: Completion) {
    switch completion.token.owner {
    case Owner.client: completeClient(completion)
    case Owner.upstream: completeUpstream(completion)
    case Owner.listener: acceptor.complete(completion)
    default: break
    }
  }

  override func expire(_ token: Token) {
    switch token.owner {
    case Owner.call: deadlinePassed(token.handle)
    case Owner.listener: acceptor.expire(token)
    case Owner.core where token.operation == CoreTimer.retry:
      (retryTimer, retryDue) = (.none, .distantFuture)
      startWaiting()
    case Owner.core where token.operation == CoreTimer.patience: endPatience()
    case Owner.core where token.operation == CoreTimer.rest: endRest()
    case Owner.core where token.operation == CoreTimer.proofs: proofsDue()
    case Owner.core where token.operation == CoreTimer.patienceOfReads: reads.indexes.patienceEnded()
    case Owner.core where token.operation == CoreTimer.watch:
      (watchTimer, watchDue) = (.none, .distantFuture)
      watch.tick()
      watchHome.tick()
      lookThroughWatches()
      if watchHome.isBusy || watch.groupCount > 0 { scheduleWatchTick() }
    case Owner.core where token.operation == CoreTimer.heartbeats: heartbeats.look()
    case Owner.core where token.operation == CoreTimer.leaders: leaders.tick()
    default: sweep()
    }
  }

  override func woken() {
    shared.group.links[index].doorbell.answer()
    while let message = shared.group.links[index].mailbox.pop() { handle(message) }
    for sender in shared.group.links.indices {
      let box = shared.post.box(from: sender, to: index)
      while let mail = box.pop() { handle(mail, from: sender) }
    }
    watch.readRings()
  }

  private func handle(_ mail: CoreMail, from sender: Int) {
    switch mail {
    case .cache(let news): handle(news)
    case .watch(let mail): watchHome.handle(mail, from: sender)
    case .heartbeats(let mail): heartbeats.take(mail, from: sender)
    }
  }

  /// Says something to another core, or to this one.
  func send(_ mail: CoreMail, to core: Int) {
    outbox.send(mail, from: index, to: core, shared.post)
  }

  private func handle(_ message: ProxyMessage) {
    switch message {
    case .table(let newer): tableChanged(newer)
    case .endpointHung(let slot): endpointHung(slot)
    case .certificates(let server, let client): (serverTLS, clientTLS) = (server, client)
    case .page(let reply): deliver(reply)
    case .lease(let answer): leaseAnswered(answer)
    case .members(let answer): members = answer
    case .drain(let deadline): startDraining(until: deadline)
    case .stop: stopAtOnce()
    case .ping: shared.group.links[index].answerPing()
    }
  }

  override func finishTurn() {
    for next in nextAddresses where isInTable(next.endpoint) {
      connect(next.endpoint, next.purpose, address: next.address)
    }
    nextAddresses.removeAll(keepingCapacity: true)
    endClients()
    relievePressure()
    startForFreedStreams()
    watch.finishTurn()
    watchHome.finishTurn()
    heartbeats.settle()
    leaders.settle()
    repeat {
      settleReads()
      dispatchStarting()
    } while reads.isUnsettled
    settleOwnCalls()
    outbox.flush(from: index, shared.post) { shared.group.links[$0].ring(from: kernel) }
    // From here on nothing writes to a connection: what is sent off must be all there is.
    settleUpstreams()
    settleClients()
    schedulePatient()
    feedStarved()
    if gate.isDrained { finish() }
  }

  /// The watches are looked after in a moment.
  func scheduleWatchTick(after pause: Instant.Span = .seconds(1)) {
    guard !isEnding, now + pause < watchDue else { return }
    timers.cancel(watchTimer)
    watchDue = now + pause
    watchTimer = timers.schedule(
      at: watchDue,
      Token(owner: Owner.core, operation: CoreTimer.watch, handle: Handle(slot: 0, generation: 0)))
  }

  /// Once a second. When there are too many groups for all to have a long history, each has its share.
  private func lookThroughWatches() {
    guard now >= watchesLookedThrough + .milliseconds(900) else { return }
    watchesLookedThrough = now
    let isMuch = watch.historyBytes + watchHome.historyBytes > Limits.historyBytesACore
    let share = Limits.historyBytesACore / max(1, watch.groupCount + watchHome.groups.count)
    historyLimit =
      isMuch
      ? max(Limits.leastHistoryBytes, min(share, Limits.historyBytesAGroup)) : Limits.historyBytesAGroup
    let age = min(now.nanoseconds, Limits.historyAge.nanoseconds)
    watch.lookThrough(olderThan: Instant(nanoseconds: now.nanoseconds - age))
    watchHome.lookThrough(olderThan: Instant(nanoseconds: now.nanoseconds - age))
  }

  private func dispatchStarting() {
    var next = 0
    while next < starting.count {
      dispatch(starting[next])
      next += 1
    }
    starting.removeAll(keepingCapacity: true)
    if wantsRetry, !waiting.isEmpty { scheduleRetry() }
    wantsRetry = false
  }

  /// Ends the connections that are done or broken, which takes their calls' streams back from etcd.
  private func endClients() {
    for handle in touchedClients {
      _ = clients.edit(handle) { connection in
        if connection.isDone, !connection.transport.owesOutput { connection.transport.takeLeave() }
        if connection.transport.isBroken || connection.isDone && !connection.transport.owesOutput {
          endClient(&connection, handle)
        }
      }
    }
  }

  /// Sends what waits, and removes what is over.
  private func settleUpstreams() {
    for handle in touchedUpstreams {
      let isOver = upstreams.edit(handle) { connection in
        connection.isTouched = false
        if connection.phase != .ended && !connection.isConnecting {
          connection.transport.flush(kernel, upstreamToken(Operation.send, handle), isPatient: true)
          if connection.transport.owesLittle { patientUpstreams.append(handle) }
        }
        return connection.phase == .ended && !connection.isConnecting && !connection.transport.isInFlight
      }
      if isOver == true { removeUpstream(handle) }
    }
    touchedUpstreams.removeAll(keepingCapacity: true)
  }

  /// Acknowledgements that have found no company leave after all.
  private func schedulePatient() {
    guard patientTimer == .none, !patientClients.isEmpty || !patientUpstreams.isEmpty else { return }
    patientTimer = timers.schedule(
      at: now + Self.patience,
      Token(owner: Owner.core, operation: CoreTimer.patience, handle: Handle(slot: 0, generation: 0)))
  }

  private func endPatience() {
    patientTimer = .none
    // Not at once: what else this turn has for them has to leave in the same send.
    for handle in patientUpstreams {
      _ = upstreams.edit(handle) { connection in
        connection.transport.http2.endPatience()
        touch(&connection, handle)
      }
    }
    for handle in patientClients {
      _ = clients.edit(handle) { connection in
        connection.transport.http2.endPatience()
        touch(&connection, handle)
      }
    }
    patientUpstreams.removeAll(keepingCapacity: true)
    patientClients.removeAll(keepingCapacity: true)
  }

  private func settleClients() {
    for handle in touchedClients {
      let isOver = clients.edit(handle) { connection in
        connection.isTouched = false
        if connection.phase != .ended { flush(&connection, handle) }
        return connection.phase == .ended && !connection.transport.isInFlight
      }
      if isOver == true { removeClient(handle) }
    }
    touchedClients.removeAll(keepingCapacity: true)
  }

  private func flush(_ connection: inout ClientConnection, _ handle: Handle) {
    let isPatient = connection.phase == .http2
    // Behind a page comes the next one or the end, behind the last frame the end.
    let isPrompt = connection.phase == .http1 || connection.isDone
    connection.transport.flush(
      kernel, clientToken(Operation.send, handle), isPatient: isPatient, isPrompt: isPrompt)
    if isPatient, connection.transport.owesLittle { patientClients.append(handle) }
  }

  /// Arms the receives that had ended for want of buffers, now that some are free.
  private func feedStarved() {
    guard !starvedClients.isEmpty || !starvedUpstreams.isEmpty, kernel.buffers.held < kernel.buffers.count
    else { return }
    for handle in starvedClients {
      _ = clients.edit(handle) { connection in
        guard connection.phase != .ended else { return }
        connection.transport.receive(kernel, clientToken(Operation.receive, handle))
      }
    }
    for handle in starvedUpstreams {
      _ = upstreams.edit(handle) { connection in
        guard connection.phase != .ended else { return }
        connection.transport.receive(kernel, upstreamToken(Operation.receive, handle))
      }
    }
    starvedClients.removeAll(keepingCapacity: true)
    starvedUpstreams.removeAll(keepingCapacity: true)
  }

  // MARK: Names

  func clientToken(_ operation: UInt8, _ handle: Handle) -> Token {
    Token(owner: Owner.client, operation: operation, handle: handle)
  }

  func upstreamToken(_ operation: UInt8, _ handle: Handle) -> Token {
    Token(owner: Owner.upstream, operation: operation, handle: handle)
  }

  func touch(_ connection: inout ClientConnection, _ handle: Handle) {
    guard !connection.isTouched else { return }
    connection.isTouched = true
    touchedClients.append(handle)
  }

  func touch(_ connection: inout UpstreamConnection, _ handle: Handle) {
    guard !connection.isTouched else { return }
    connection.isTouched = true
    touchedUpstreams.append(handle)
  }
}
