internal import Glibc
internal import Reactor

/// What the start of either server consists of.
enum ServerStart {
  static func makeLog(_ level: CommonOptions.LogLevel, _ format: CommonOptions.LogFormat) throws(StartFailure)
    -> Log
  {
    do throws(SystemError) {
      let level: LogLevel = LogLevel.allCases.first { $0.name == level.rawValue } ?? .info
      return try Log(level: level, format: format == .console ? .console : .json)
    } catch {
      throw StartFailure("cannot start the log's thread: \(error)")
    }
  }

  static func endpoint(_ text: String) throws(StartFailure) -> EndpointName {
    do throws(EndpointName.Malformed) {
      return try EndpointName(text)
    } catch {
      throw StartFailure("\(error)")
    }
  }

  static func chooseBackend(_ choice: CommonOptions.IOBackend, _ log: Log) -> IOBackend {
    switch choice {
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

  /// How many connections fit with so many descriptors each, leaving some for everything else.
  static func connectionLimit(wanted: Int, descriptorsEach: Int, _ log: Log) -> Int {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    if limit.rlim_cur < limit.rlim_max {
      limit.rlim_cur = limit.rlim_max
      unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    let fits = max(16, (Int(clamping: limit.rlim_cur) - Limits.descriptorsForOthers) / descriptorsEach)
    guard wanted > 0 else { return fits }
    if wanted > fits {
      log.warn(
        "--max-connections is more than the descriptor limit allows; raise RLIMIT_NOFILE (LimitNOFILE=)",
        .int("max-connections", Int64(wanted)), .int("allowed", Int64(fits)))
    }
    return min(wanted, fits)
  }

  /// The kernel interface of the control thread, and the descriptor that its signals come through.
  static func controlKernel(_ backend: IOBackend) throws(StartFailure) -> (kernel: Kernel, signals: Int32) {
    do throws(SystemError) {
      let signals = try Signals.descriptor()
      let buffers = BufferPool(count: Limits.controlBuffers, size: Limits.receiveBufferSize)
      return (try backend.makeKernel(buffers: buffers), signals)
    } catch {
      let refusal = IOBackend.Refusal(error: error)
      throw StartFailure("cannot use \(backend.rawValue): \(refusal); try --io-backend=auto")
    }
  }

  /// Starts a thread for each core and waits until all run.
  ///
  /// - Parameters:
  ///   - pinned: each to a processor of its own.
  ///   - makeCore: builds a core; called on its thread.
  static func startCores<Message: ControlMessage>(
    _ group: CoreGroup<Message>, _ backend: IOBackend, pinned: Bool, buffers: (count: Int, size: Int),
    _ control: ControlCore<Message>,
    makeCore: @escaping @Sendable (_ index: Int, _ kernel: Kernel) throws(SystemError) -> Core
  ) throws(StartFailure) -> [CoreThread] {
    let processors = Processors.allowed
    var threads: [CoreThread] = []
    do throws(SystemError) {
      for index in 0..<group.links.count {
        group.countCore(1)
        threads.append(
          try CoreThread(
            name: "rw-core-\(index)", processor: pinned ? processors[index % processors.count] : nil
          ) {
            run(index, group, backend, buffers, makeCore)
          })
      }
    } catch {
      throw StartFailure("cannot start a thread: \(error)")
    }
    while !group.isStarted { control.turn() }
    try control.checkAborted()
    if let error = group.coreFailure {
      throw StartFailure("cannot start a core on \(backend.rawValue): \(IOBackend.Refusal(error: error))")
    }
    return threads
  }

  /// A core's thread from beginning to end.
  private static func run<Message: ControlMessage>(
    _ index: Int, _ group: CoreGroup<Message>, _ backend: IOBackend, _ buffers: (count: Int, size: Int),
    _ makeCore: (Int, Kernel) throws(SystemError) -> Core
  ) {
    do throws(SystemError) {
      let pool = BufferPool(count: buffers.count, size: buffers.size)
      let kernel = try backend.makeKernel(buffers: pool)
      let core = try makeCore(index, kernel)
      group.attach(index, kernel)
      core.woken()
      core.run()
      core.ended()
    } catch {
      group.attachFailed(error)
    }
    group.countCore(-1)
    group.control.wake()
  }

  /// etcd logs both lines whether or not a service manager listens (server/etcdmain/main.go: notifySystemd).
  static func notify(_ manager: ServiceManager, _ log: Log) {
    log.info("notifying init daemon")
    manager.ready()
    log.info("successfully notified init daemon")
  }
}
