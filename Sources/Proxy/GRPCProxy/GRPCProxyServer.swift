internal import Glibc
internal import Reactor

/// `ringway grpc-proxy start`: puts the parts together, runs them, and ends when they have ended.
///
/// The order and the texts of the start follow etcd's (server/etcdmain/grpc_proxy.go: startGRPCProxy).
enum GRPCProxyServer {
  /// Runs until a signal ends it.
  ///
  /// - Parameter arguments: the whole command line, for the log.
  /// - Returns: the exit status; what went wrong has then been said on stderr.
  static func run(_ options: GRPCProxyOptions, arguments: [String]) -> Int32 {
    Limits.check()
    do throws(StartFailure) {
      let log = try ServerStart.makeLog(options.effectiveLogLevel, options.logFormat)
      defer { log.close() }
      log.info("Running: ", .strings("args", arguments))
      try serve(options, log)
      return 0
    } catch {
      StandardError.write(error.text + "\n")
      return error.status
    }
  }

  private static func serve(_ options: GRPCProxyOptions, _ log: Log) throws(StartFailure) {
    for warning in options.startWarnings { log.warn(warning) }
    for text in options.endpoints { _ = try ServerStart.endpoint(text) }
    let certificates = try Certificates(options, log)
    let backend = ServerStart.chooseBackend(options.ioBackend, log)
    let manager = ServiceManager()
    let cores = options.threads > 0 ? options.threads : Processors.usable()
    let shared = ProxyShared(
      options: options, log: log, cores: cores, backend: backend,
      connectionLimit: ServerStart.connectionLimit(wanted: options.maxConnections, descriptorsEach: 1, log))
    let (kernel, signals) = try ServerStart.controlKernel(backend)
    let control = ProxyControl(
      kernel: kernel, shared: shared, certificates: certificates, manager: manager, signals: signals)
    let table = try control.findEndpoints()
    if let isTLS = control.endpoints?.discoversTLS { try certificates.follow(discovery: isTLS, options) }
    let metrics = options.metricsAddress.isEmpty ? nil : try metricsURL(options.metricsAddress)
    let listeners = try ServerListeners(try wishes(options, cores, metrics), table, manager, log) {
      listen throws(StartFailure) in try control.resolve(listen)
    }
    let tls = (server: certificates.server, client: certificates.client)
    let threads = try ServerStart.startCores(
      shared.group, backend, pinned: options.pinThreads,
      buffers: (Limits.proxyReceiveBuffers, Limits.proxyReceiveBufferSize), control
    ) { index, kernel throws(SystemError) in
      var pages: ProxyCore.PagesListener?
      if index == 0, let admin = listeners.admin {
        pages = ProxyCore.PagesListener(descriptor: admin, isTLS: metrics?.isTLS == true)
      }
      return try ProxyCore(
        index: index, kernel: kernel, shared: shared, table: table, listeners: listeners.sockets(of: index),
        pages: pages, tls: tls)
    }
    log.info(
      "cores run", .int("threads", Int64(cores)), .string("io-backend", backend.rawValue),
      .strings("io-features", shared.group.features))
    if metrics != nil {
      log.info("gRPC proxy listening for metrics", .string("address", options.metricsAddress))
      log.info("gRPC proxy server metrics URL serving")
    }
    if options.pprof { log.info("gRPC proxy enabled pprof", .string("path", "/debug/pprof")) }
    control.startServices()
    log.info("started gRPC proxy", .string("address", options.listenAddresses.first ?? ""))
    ServerStart.notify(manager, log)
    control.run()
    for thread in threads { thread.join() }
    listeners.removeSocketFiles()
    log.info("stopped", .uint("connections-served", shared.counters[.closed]))
  }

  private static func metricsURL(_ text: String) throws(StartFailure) -> MetricsURL {
    do throws(OptionProblem) {
      return try MetricsURL(text)
    } catch {
      throw StartFailure(error.text)
    }
  }

  private static func wishes(
    _ options: GRPCProxyOptions, _ cores: Int, _ metrics: MetricsURL?
  ) throws(StartFailure) -> ServerListeners.Wishes {
    .init(
      addresses: options.listenAddresses, cores: cores,
      inherited: .init(keepalive: .seconds(30), userTimeout: .zero),
      admin: try metrics.map { metrics throws(StartFailure) in try ListenAddress(metrics.listenAddress) },
      message: "listening for gRPC proxy client requests")
  }
}
