internal import Reactor
internal import Synchronization

/// What the control thread tells a core.
enum CoreMessage: Sendable {
  /// The endpoints have changed.
  case table(EndpointTable)
  /// The endpoint does not answer any more: end its connections.
  case endpointHung(Int)
  /// Stop accepting, and be done by then.
  case drain(until: Instant)
  /// End everything now.
  case stop
  /// Show that the core's loop turns.
  case ping
}

/// What all threads of a gateway share.
final class GatewayShared: Sendable {
  let options: GatewayOptions
  let log: Log
  let endpoints: EndpointContext
  let counters: GatewayCounters
  let admission: Admission
  private let cores = Atomic<Int>(0)
  let links: [CoreLink]
  /// The way back to the control thread.
  let control = CoreLink()

  let backend: IOBackend
  private let start = Mutex(Start())

  private struct Start {
    var attached = 0
    var failure: SystemError?
    var features: [String] = []
  }

  init(options: GatewayOptions, log: Log, cores: Int, backend: IOBackend, connectionLimit: Int) {
    self.options = options
    self.log = log
    self.backend = backend
    endpoints = EndpointContext(settings: options.endpointSettings, log: log, cores: cores)
    counters = GatewayCounters(cores: cores)
    admission = Admission(connections: connectionLimit, perSource: options.maxConnectionsPerSource)
    links = (0..<cores).map { _ in CoreLink() }
  }
}

extension GatewayShared {
  /// What is known of the endpoints.
  var board: EndpointBoard { endpoints.board }

  /// A core's ring is up, and it is about to run.
  func attach(_ core: Int, _ kernel: Kernel) {
    links[core].attach(kernel)
    start.withLock { start in
      start.attached += 1
      start.features = (kernel as? UringKernel)?.features ?? []
    }
    control.wake()
  }

  /// A core could not be built.
  func attachFailed(_ error: SystemError) {
    start.withLock { start in
      start.attached += 1
      start.failure = error
    }
    control.wake()
  }

  /// True once every core is up or has failed.
  var isStarted: Bool { start.withLock { $0.attached == links.count } }

  /// Why a core could not be built.
  var coreFailure: SystemError? { start.withLock { $0.failure } }

  /// What the kernel granted the cores' rings, in words for the log.
  var features: [String] { start.withLock { $0.features } }

  /// Cores whose threads run.
  var runningCores: Int { cores.load(ordering: .acquiring) }

  /// A core's thread starts (+1) or has returned (−1).
  func countCore(_ change: Int) { cores.add(change, ordering: .acquiringAndReleasing) }
}

/// How the control thread reaches one core.
@safe final class CoreLink: @unchecked Sendable {
  let mailbox = Mailbox<CoreMessage>(capacity: 256)
  let doorbell = Doorbell()
  private let pongs = Atomic<UInt64>(0)
  /// Of a kernel interface only `wake` may be called from another thread, and nothing else is.
  private struct Bell: @unchecked Sendable { let kernel: Kernel }
  private let bell = Mutex<Bell?>(nil)

  /// The core is about to run: from now on it can be woken. It has to look into its mailbox once by itself, for what
  /// was sent before.
  func attach(_ kernel: Kernel) {
    let bell = Bell(kernel: kernel)
    self.bell.withLock { $0 = bell }
  }

  /// Sends a message and wakes the core if it may sleep. False when the mailbox is full, which means that the core
  /// has not turned for a long time.
  func send(_ message: CoreMessage, from own: Kernel?) -> Bool {
    guard mailbox.push(message) == nil else { return false }
    if doorbell.ring() { bell.withLock { $0 }?.kernel.wake(from: own) }
    return true
  }

  /// Wakes the core without a message.
  func wake() { bell.withLock { $0 }?.kernel.wake(from: nil) }

  /// The core answers a ping.
  func answerPing() { pongs.add(1, ordering: .relaxed) }

  /// Pings answered so far.
  var answeredPings: UInt64 { pongs.load(ordering: .relaxed) }
}

/// Who may come in. Connections are counted over all cores; sources only when there is a limit for them.
final class Admission: Sendable {
  enum Refusal: String, Sendable {
    case connections = "connection limit reached (--max-connections)"
    case source = "connection limit of this source reached (--max-connections-per-source)"
    case draining = "shutting down"
  }

  private let limit: Int
  private let perSource: Int
  private let count = Atomic<Int>(0)
  /// A lock, but one that is taken once a connection and only with `--max-connections-per-source`.
  private let sources = Mutex<[String: Int]>([:])

  init(connections: Int, perSource: Int) {
    limit = connections
    self.perSource = perSource
  }

  /// Connections admitted and not yet released.
  var active: Int { count.load(ordering: .relaxed) }

  /// Nil when the client may come in; it must then be released with the same source.
  func refusal(_ source: Address?) -> Refusal? {
    guard count.add(1, ordering: .relaxed).newValue <= limit else {
      count.subtract(1, ordering: .relaxed)
      return .connections
    }
    guard perSource > 0, let source, !admit(source.host) else { return nil }
    count.subtract(1, ordering: .relaxed)
    return .source
  }

  private func admit(_ host: String) -> Bool {
    sources.withLock { sources in
      let current = sources[host] ?? 0
      guard current < perSource, current > 0 || sources.count < Limits.countedSources else { return false }
      sources[host] = current + 1
      return true
    }
  }

  func release(_ source: Address?) {
    count.subtract(1, ordering: .relaxed)
    guard perSource > 0, let host = source?.host else { return }
    sources.withLock { sources in
      guard let current = sources[host] else { return }
      sources[host] = current > 1 ? current - 1 : nil
    }
  }
}
