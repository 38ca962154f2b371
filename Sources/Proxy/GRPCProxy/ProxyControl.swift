internal import CUring
internal import Glibc
internal import Reactor

extension ProxyMessage: ControlMessage {}

/// The gRPC proxy's control thread: health of the members, registration, pages, certificates.
final class ProxyControl: ControlCore<ProxyMessage> {
  private enum Owner {
    static let client: UInt8 = 1
    static let prober: UInt8 = 2
    static let fetcher: UInt8 = 3
  }

  private static let syncLimit = Instant.Span.seconds(5)

  private let shared: ProxyShared
  private let pool = BlockPool()
  private let certificates: Certificates
  private lazy var client = EtcdClient(
    core: self, owner: Owner.client, tls: certificates.client,
    connectTimeout: shared.options.upstreamTimeout.span)
  private lazy var prober = MemberProber(core: self, owner: Owner.prober, shared: shared, client: client)
  private lazy var fetcher = PageFetcher(core: self, owner: Owner.fetcher)
  private lazy var pages = ProxyPages(
    shared: shared, client: client, fetcher: fetcher, prober: prober, certificates: certificates
  ) { [unowned self] in endpoints?.table.endpoints ?? [] }
  private var registrar: Registrar?
  private var lastSync = Instant(nanoseconds: 0)
  private var isSyncing = false
  private var lastFreeing = Instant(nanoseconds: 0)

  init(
    kernel: Kernel, shared: ProxyShared, certificates: Certificates, manager: ServiceManager, signals: Int32
  ) {
    self.shared = shared
    self.certificates = certificates
    let setup = Setup(
      group: shared.group, endpoints: shared.endpoints, admission: shared.admission,
      drainTimeout: shared.options.drainTimeout)
    super.init(kernel: kernel, setup: setup, manager: manager, signals: signals)
  }

  /// Once the cores run.
  func startServices() {
    if shared.options.registers {
      let registrar = Registrar(core: self, shared: shared, client: client) { [unowned self] in bestEndpoint }
      registrar.changed = { [unowned self] members in tellMembers(members) }
      self.registrar = registrar
    }
    lastSync = now
    started()
  }

  /// Without any that is registered the proxy knows of itself.
  private func tellMembers(_ members: [Member]) {
    let answer = members.isEmpty ? MemberAnswer(ownOf: shared.options) : MemberAnswer(members)
    if let answer { tell { .members(answer) } }
  }

  /// Where the control thread's own calls go: the clients' endpoint if it is well, else any that is.
  private var bestEndpoint: Endpoint? {
    let all = endpoints?.table.endpoints ?? []
    let sticky = shared.sticky.load(ordering: .relaxed)
    for status in EndpointBoard.Status.allCases {
      let fit = all.filter { shared.board.status($0.slot) == status }
      if let endpoint = fit.first(where: { $0.slot == sticky }) ?? fit.randomElement() { return endpoint }
    }
    return nil
  }

  override func finishTurn() { client.finishTurn() }

  // MARK: Hooks

  override func endpointsChanged(_ table: EndpointTable) {
    client.retain(table.endpoints)
    prober.watch(table.endpoints)
  }

  override func tick() {
    if !isDraining { registrar?.tick() }
    syncEndpoints()
    lookAtFiles()
    releaseMemory()
  }

  /// glibc keeps what a thread has freed, unless it lies at the very end. Asking for it takes the locks of all threads for a
  /// moment, so it is neither for a core to do nor to be done often.
  private func releaseMemory() {
    guard shared.freed.load(ordering: .relaxed) >= Limits.freedBytes, now - lastFreeing >= Limits.freeingPause
    else { return }
    lastFreeing = now
    shared.freed.store(0, ordering: .relaxed)
    malloc_trim(0)
  }

  override func reload() {
    prober.probeAll()
    lookAtFiles()
  }

  override func drain() {
    registrar?.leave { [unowned self] in endWhenAlone() }
  }

  override var isDone: Bool { registrar?.isDone != false }

  override func completeService(_ completion: Completion) {
    if completion.token.owner == Owner.client {
      client.complete(completion)
    } else {
      fetcher.complete(completion)
    }
  }

  override func serviceTimer(_ token: Token) {
    switch token.owner {
    case Owner.client: client.expire(token)
    case Owner.prober: prober.expire()
    default: fetcher.expire(token)
    }
  }

  override func coreRang() {
    for (core, mailbox) in shared.leaseQuestions.enumerated() {
      while let question = mailbox.pop() { lookUp(question, for: core) }
    }
    for (core, mailbox) in shared.pageRequests.enumerated() {
      while let request = mailbox.pop() {
        pages.make(request) { [unowned self] page in
          send(.page(PageReply(request, page)), to: core)
        }
      }
    }
  }

  // MARK: Leases of a strict namespace

  /// A lease may be used if nothing outside the namespace hangs on it.
  private func lookUp(_ question: LeaseQuestion, for core: Int) {
    func tell(_ refusal: GRPCStatus?) {
      send(.lease(LeaseAnswer(call: question.call, lease: question.lease, refusal: refusal)), to: core)
    }
    guard let endpoint = bestEndpoint, let namespace = shared.namespace else {
      return tell(GRPCStatus(.unavailable, "etcd is not reachable"))
    }
    var request = ByteBuffer(pool)
    LeaseTimeToLiveRequest(id: question.lease, wantsKeys: true).encode(into: &request)
    let message = unsafe Array(request.bytes)
    client.call(
      "/etcdserverpb.Lease/LeaseTimeToLive", message, at: endpoint, within: Self.syncLimit,
      token: question.token
    ) { result in
      switch result {
      case .failure(.status(let status)): tell(status)
      case .failure(let failure): tell(GRPCStatus(code: .unavailable, message: Array(failure.text.utf8)))
      case .success(let bytes):
        let isOwn = unsafe bytes.withUnsafeBytes { bytes in
          guard var keys = Optional(unsafe ProtoSequence(of: 5, in: bytes)) else { return false }
          do {
            while let key = unsafe try keys.next() {
              guard unsafe key.starts(with: namespace.prefix) else { return false }
            }
            return true
          } catch {
            return false
          }
        }
        tell(isOwn ? nil : GRPCStatus(.permissionDenied, "etcdserver: permission denied"))
      }
    }
  }

  // MARK: Endpoints from etcd's member list

  private func syncEndpoints() {
    guard let interval = shared.options.effectiveAutoSyncInterval, !isSyncing,
      now - lastSync >= interval.span,
      let endpoint = bestEndpoint
    else { return }
    lastSync = now
    isSyncing = true
    client.call("/etcdserverpb.Cluster/MemberList", [8, 1], at: endpoint, within: Self.syncLimit) {
      [unowned self] result in
      isSyncing = false
      switch result {
      case .failure(let failure):
        log.info("Auto sync endpoints failed.", .string("error", failure.text))
      case .success(let bytes):
        guard let list = unsafe bytes.withUnsafeBytes({ unsafe try? MemberListResponse($0) }) else { return }
        take(list.members)
      }
    }
  }

  /// The client URLs of all members that have started and are no learners.
  private func take(_ members: [Member]) {
    let urls = members.filter { !$0.name.isEmpty && !$0.isLearner }.flatMap(\.clientURLs)
    guard !urls.isEmpty, endpoints?.replace(urls) == true else { return }
    log.info("set etcd endpoints by autoSync", .strings("endpoints", urls))
  }

  // MARK: Certificates

  private func lookAtFiles() {
    guard certificates.reload(log) else { return }
    client.tls = certificates.client
    tell { .certificates(certificates.server, certificates.client) }
  }
}
