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
      let log = try ServerStart.makeLog(options.logLevel, options.logFormat)
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
    for text in options.endpoints { _ = try ServerStart.endpoint(text) }
    for text in options.listenAddresses { _ = try ListenAddress(text) }
    if !options.metricsAddress.isEmpty { _ = try ListenAddress(metrics: options.metricsAddress) }
  }

  private static func serve(_ options: GatewayOptions, _ log: Log) throws(StartFailure) {
    try check(options)
    let backend = ServerStart.chooseBackend(options.ioBackend, log)
    let manager = ServiceManager()
    let cores = options.threads > 0 ? options.threads : Processors.usable()
    let shared = GatewayShared(
      options: options, log: log, cores: cores, backend: backend,
      connectionLimit: ServerStart.connectionLimit(
        wanted: options.maxConnections, descriptorsEach: 2, log))
    let (kernel, signals) = try ServerStart.controlKernel(backend)
    let control = GatewayControl(kernel: kernel, shared: shared, manager: manager, signals: signals)
    let table = try control.findEndpoints()
    let listeners = try ServerListeners(try wishes(options, cores), table, manager, log) {
      listen throws(StartFailure) in try control.resolve(listen)
    }
    let threads = try ServerStart.startCores(
      shared.group, backend, pinned: options.pinThreads,
      buffers: (Limits.receiveBuffers, Limits.receiveBufferSize), control
    ) { index, kernel throws(SystemError) in
      try GatewayCore(
        index: index, kernel: kernel, shared: shared, table: table, listeners: listeners.sockets(of: index))
    }
    log.info(
      "cores run", .int("threads", Int64(cores)), .string("io-backend", backend.rawValue),
      .strings("io-features", shared.group.features))
    control.startServices(adminListener: listeners.admin)
    log.info("ready to proxy client requests", .strings("endpoints", table.endpoints.map(\.name)))
    ServerStart.notify(manager, log)
    control.run()
    for thread in threads { thread.join() }
    listeners.removeSocketFiles()
    log.info("stopped", .uint("connections-served", shared.counters.sum(.closed)))
  }

  private static func wishes(_ options: GatewayOptions, _ cores: Int) throws(StartFailure)
    -> ServerListeners.Wishes
  {
    .init(
      addresses: options.listenAddresses, cores: cores,
      inherited: .init(keepalive: options.tcpKeepalive.span, userTimeout: options.tcpUserTimeout.span),
      admin: options.metricsAddress.isEmpty ? nil : try ListenAddress(metrics: options.metricsAddress),
      message: "listening for client connections")
  }
}
