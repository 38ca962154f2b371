internal import Glibc
internal import Reactor

/// `ringway gateway start`: puts the parts together, runs them, and ends when they have ended.
///
/// The order and the texts of the start follow etcd's (server/etcdmain/gateway.go: startGateway).
public enum GatewayServer {
  /// Runs until a signal ends it.
  ///
  /// - Parameter arguments: the whole command line, for the log.
  /// - Returns: the exit status; what went wrong has then been said on stderr.
  public static func run(_ options: GatewayOptions, arguments: [String]) -> Int32 {
    Limits.check()
    do throws(StartFailure) {
      let log = try makeLog(options)
      defer { log.close() }
      log.info("Running: ", .strings("args", arguments))
      try GatewayServer.serve(options, log)
      return 0
    } catch {
      StandardError.write(error.text + "\n")
      return error.status
    }
  }

  /// Checks a command line without starting: what would stop a start is thrown. Names are not looked up.
  static func check(_ options: GatewayOptions) throws(StartFailure) {
    if let problem = options.firstProblem() { throw StartFailure(problem.text) }
    for text in options.endpoints { _ = try endpoint(text) }
    for text in options.listenAddresses { _ = try ListenAddress(text) }
    if !options.metricsAddress.isEmpty { _ = try ListenAddress(metrics: options.metricsAddress) }
  }

  private static func makeLog(_ options: GatewayOptions) throws(StartFailure) -> Log {
    do throws(SystemError) {
      let level: LogLevel = LogLevel.allCases.first { $0.name == options.logLevel.rawValue } ?? .info
      return try Log(level: level, format: options.logFormat == .console ? .console : .json)
    } catch {
      throw StartFailure("cannot start the log's thread: \(error)")
    }
  }

  private static func endpoint(_ text: String) throws(StartFailure) -> EndpointName {
    do throws(EndpointName.Malformed) {
      return try EndpointName(text)
    } catch {
      throw StartFailure("\(error)")
    }
  }

  private static func serve(_ options: GatewayOptions, _ log: Log) throws(StartFailure) {
    try check(options)
    let backend = chooseBackend(options, log)
    let manager = ServiceManager()
    let cores = options.threads > 0 ? options.threads : Processors.usable()
    let shared = GatewayShared(
      options: options, log: log, cores: cores, backend: backend,
      connectionLimit: connectionLimit(options, log))
    let control = try makeControl(shared, manager)
    let table = try control.findEndpoints()
    let listeners = try GatewayListeners(shared, table, manager, control)
    let threads = try startCores(shared, table, listeners, control)
    log.info(
      "cores run", .int("threads", Int64(cores)), .string("io-backend", backend.rawValue),
      .strings("io-features", shared.group.features))
    control.startServices(adminListener: listeners.admin)
    log.info("ready to proxy client requests", .strings("endpoints", table.endpoints.map(\.name)))
    notify(manager, log)
    control.run()
    for thread in threads { thread.join() }
    listeners.removeSocketFiles()
    log.info("stopped", .uint("connections-served", shared.counters.sum(.closed)))
  }

  /// etcd logs both lines whether or not a service manager listens (server/etcdmain/main.go: notifySystemd).
  private static func notify(_ manager: ServiceManager, _ log: Log) {
    log.info("notifying init daemon")
    manager.ready()
    log.info("successfully notified init daemon")
  }

  // MARK: Parts

  private static func chooseBackend(_ options: GatewayOptions, _ log: Log) -> IOBackend {
    switch options.ioBackend {
    case .ioUring: return .uring
    case .epoll: return .epoll
    case .auto:
      switch IOBackend.probeUring() {
      case .success: return .uring
      case .failure(let refusal):
        log.warn(
          "io_uring is not available; using epoll, which costs more CPU",
          .string("cause", refusal.description))
        return .epoll
      }
    }
  }

  /// How many connections fit: two descriptors each, and some for everything else.
  private static func connectionLimit(_ options: GatewayOptions, _ log: Log) -> Int {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    if limit.rlim_cur < limit.rlim_max {
      limit.rlim_cur = limit.rlim_max
      unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    let fits = max(16, (Int(clamping: limit.rlim_cur) - Limits.descriptorsForOthers) / 2)
    guard options.maxConnections > 0 else { return fits }
    if options.maxConnections > fits {
      log.warn(
        "--max-connections is more than the descriptor limit allows; raise RLIMIT_NOFILE (LimitNOFILE=)",
        .int("max-connections", Int64(options.maxConnections)), .int("allowed", Int64(fits)))
    }
    return min(options.maxConnections, fits)
  }

  private static func makeControl(
    _ shared: GatewayShared, _ manager: ServiceManager
  ) throws(StartFailure) -> GatewayControl {
    do throws(SystemError) {
      let signals = try Signals.descriptor()
      let buffers = BufferPool(count: Limits.controlBuffers, size: Limits.receiveBufferSize)
      let kernel = try shared.backend.makeKernel(buffers: buffers)
      return GatewayControl(kernel: kernel, shared: shared, manager: manager, signals: signals)
    } catch {
      let refusal = IOBackend.Refusal(error: error)
      throw StartFailure("cannot use \(shared.backend.rawValue): \(refusal); try --io-backend=auto")
    }
  }

  private static func startCores(
    _ shared: GatewayShared, _ table: EndpointTable, _ listeners: GatewayListeners, _ control: GatewayControl
  ) throws(StartFailure) -> [CoreThread] {
    let processors = Processors.allowed
    var threads: [CoreThread] = []
    do throws(SystemError) {
      for index in 0..<shared.group.links.count {
        let processor = shared.options.pinThreads ? processors[index % processors.count] : nil
        shared.group.countCore(1)
        threads.append(
          try CoreThread(name: "rw-core-\(index)", processor: processor) {
            runCore(index, shared, table, listeners.sockets(of: index))
          })
      }
    } catch {
      throw StartFailure("cannot start a thread: \(error)")
    }
    while !shared.group.isStarted { control.turn() }
    try control.checkAborted()
    if let error = shared.group.coreFailure {
      throw StartFailure(
        "cannot start a core on \(shared.backend.rawValue): \(IOBackend.Refusal(error: error))")
    }
    return threads
  }

  /// A core's thread from beginning to end.
  private static func runCore(
    _ index: Int, _ shared: GatewayShared, _ table: EndpointTable, _ listeners: [Int32]
  ) {
    do throws(SystemError) {
      let buffers = BufferPool(count: Limits.receiveBuffers, size: Limits.receiveBufferSize)
      let kernel = try shared.backend.makeKernel(buffers: buffers)
      let core = try GatewayCore(
        index: index, kernel: kernel, shared: shared, table: table, listeners: listeners)
      shared.group.attach(index, kernel)
      core.woken()
      core.run()
      core.releasePipes()
    } catch {
      shared.group.attachFailed(error)
    }
    shared.group.countCore(-1)
    shared.group.control.wake()
  }
}
