internal import Reactor
internal import Synchronization

/// What the control thread tells a core.
enum ProxyMessage: Sendable {
  /// The endpoints have changed.
  case table(EndpointTable)
  /// The endpoint does not answer any more: its connections end, and calls that can go elsewhere do.
  case endpointHung(Int)
  /// Certificates were read anew; for connections from now on.
  case certificates(TLSServerContext?, TLSClientContext?)
  /// A page that this core has asked for.
  case page(PageReply)
  /// A lease that this core has asked for.
  case lease(LeaseAnswer)
  /// What MemberList answers.
  case members(MemberAnswer)
  /// Stop accepting, and be done by then.
  case drain(until: Instant)
  /// End everything now.
  case stop
  /// Show that the core's loop turns.
  case ping
}

/// An HTTP request that a core hands to the control thread, which makes the pages.
struct PageRequest: Sendable {
  let core: Int
  let client: Handle
  /// 0 for HTTP/1.1.
  let stream: UInt32
  let method: String
  let target: String
}

/// The page for it.
struct PageReply: Sendable {
  let client: Handle
  let stream: UInt32
  let isHead: Bool
  let page: AdminServer.Page

  init(_ request: PageRequest, _ page: AdminServer.Page) {
    client = request.client
    stream = request.stream
    isHead = request.method == "HEAD"
    self.page = page
  }
}

/// A strict namespace's question for a lease, to be answered by the control thread.
struct LeaseQuestion: Sendable {
  let core: Int
  let call: Handle
  let lease: Int64
  /// The client's own.
  let token: [UInt8]
}

/// The answer to it.
struct LeaseAnswer: Sendable {
  let call: Handle
  let lease: Int64
  /// Why the lease may not be used; nil if it may.
  let refusal: GRPCStatus?
}

/// The leases that were granted through a strict namespace. Only such a proxy takes the lock, and only for calls about leases.
final class OwnLeases: Sendable {
  private let numbers = Mutex<Set<Int64>>([])

  func contains(_ lease: Int64) -> Bool { numbers.withLock { $0.contains(lease) } }

  /// Forgetting costs no more than questions, so a full set begins anew.
  func insert(_ lease: Int64) {
    numbers.withLock { numbers in
      if numbers.count >= Limits.ownLeases { numbers.removeAll() }
      numbers.insert(lease)
    }
  }
}

/// What all threads of a gRPC proxy share.
final class ProxyShared: Sendable {
  let options: GRPCProxyOptions
  let log: Log
  let endpoints: EndpointContext
  let counters: ProxyCounters
  let admission: Admission
  let group: CoreGroup<ProxyMessage>
  let backend: IOBackend
  let namespace: Namespace?
  let ownLeases = OwnLeases()
  let post: CorePost
  let principals = Principals()
  let cacheCounters: CacheCounters
  /// For each core.
  let cacheInterest: [CacheInterest]
  /// No member is known that answers requests for progress ahead of its events.
  let hasSoundProgress = Atomic<Bool>(false)
  /// Prefixes that have one watch for all ranges inside.
  let covers: CoveredPrefixes
  /// What each core tells the others about the watches whose home it is.
  let watchRings: [BroadcastRing<WatchNotice>]
  /// The highest revision that the process has shown to any client, or is about to.
  let seen = Atomic<Int64>(0)
  /// The highest revision that is known to be compacted away.
  let compacted = Atomic<Int64>(0)
  /// For each core, the leases and the pages it asks for.
  let leaseQuestions: [Mailbox<LeaseQuestion>]
  let pageRequests: [Mailbox<PageRequest>]
  /// The endpoint that calls go to while it is well (`--balance sticky`); negative before the first choice.
  let sticky = Atomic<Int>(-1)
  /// The newest revision any client has been shown (`--experimental-serializable-ordering`).
  let newestRevision = Atomic<Int64>(0)

  init(options: GRPCProxyOptions, log: Log, cores: Int, backend: IOBackend, connectionLimit: Int) {
    self.options = options
    self.log = log
    self.backend = backend
    endpoints = EndpointContext(settings: options.endpointSettings, log: log, cores: cores)
    counters = ProxyCounters(cores: cores)
    admission = Admission(connections: connectionLimit, perSource: options.maxConnectionsPerSource)
    group = CoreGroup(cores: cores)
    post = CorePost(cores: cores)
    cacheCounters = CacheCounters(cores: cores)
    cacheInterest = (0..<cores).map { _ in CacheInterest() }
    watchRings = (0..<cores).map { _ in
      BroadcastRing(capacity: Limits.watchNotices, readers: cores - 1)
    }
    namespace =
      options.namespace.isEmpty
      ? nil : Namespace(prefix: Array(options.namespace.utf8), strict: options.namespaceIsStrict)
    covers = CoveredPrefixes(options.coverPrefixes, namespace: namespace?.prefix ?? [])
    leaseQuestions = (0..<cores).map { _ in Mailbox(capacity: Limits.pageRequestsACore) }
    pageRequests = (0..<cores).map { _ in Mailbox(capacity: Limits.pageRequestsACore) }
  }

  /// When etcd last took a call without a token, and how often users, roles or permissions have been changed through this
  /// process.
  let authWasOff = Atomic<UInt64>(0)
  let authVersion = Atomic<UInt64>(0)
  /// Bytes that cores have given back to the allocator, which has them still.
  let freed = Atomic<Int>(0)

  /// A client is about to be shown this revision.
  func noteSeen(_ revision: Int64) {
    if revision > seen.load(ordering: .relaxed) { _ = seen.max(revision, ordering: .relaxed) }
  }

  /// etcd has forgotten what was before this revision.
  func noteCompaction(_ revision: Int64) { _ = compacted.max(revision, ordering: .relaxed) }

  var board: EndpointBoard { endpoints.board }
}
