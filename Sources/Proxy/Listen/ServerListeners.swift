internal import Glibc
internal import Reactor

/// The sockets a server listens on: for each core one per address, and one for the metrics page.
struct ServerListeners: Sendable {
  private var perCore: [[Int32]]
  /// The metrics page's, if asked for.
  private(set) var admin: Int32?
  private var socketFiles: [String] = []

  func sockets(of core: Int) -> [Int32] { perCore[core] }

  /// Unix sockets leave their file behind.
  func removeSocketFiles() {
    for file in socketFiles { unsafe unlink(file) }
  }

  /// What is to be listened on.
  struct Wishes {
    let addresses: [String]
    let cores: Int
    let inherited: ListeningSocket.Inherited
    /// The metrics page's address.
    let admin: ListenAddress?
    /// The log line once the clients' sockets are bound.
    let message: String
  }

  /// Binds everything, or takes over what a service manager has bound.
  ///
  /// - Parameter resolve: the address of a listener; may take its time to look a name up.
  init(
    _ wishes: Wishes, _ table: EndpointTable, _ manager: ServiceManager, _ log: Log,
    resolve: (ListenAddress) throws(StartFailure) -> Address
  ) throws(StartFailure) {
    perCore = [[Int32]](repeating: [], count: wishes.cores)
    let inherited = try Self.inherited(manager)
    if inherited.isEmpty {
      for text in wishes.addresses {
        let listen = try ListenAddress(text)
        let address = try resolve(listen)
        try Self.guardAgainstLoop(listen, address, table)
        spread(try bind(listen, address, cores: wishes.cores, wishes.inherited))
      }
    } else {
      log.info("listening on the service manager's sockets; --listen-addr is not used")
      for socket in inherited { spread(try Self.share(socket, cores: wishes.cores, wishes.inherited)) }
    }
    let names = (perCore.first ?? []).compactMap { Sockets.address($0)?.description }
    log.info(wishes.message, .strings("addresses", names))
    guard let listen = wishes.admin else { return }
    let address = try resolve(listen)
    let plain = ListeningSocket.Inherited(keepalive: .seconds(30), userTimeout: .zero)
    admin = try bind(listen, address, cores: 1, plain).first
    log.info(
      "listening for metrics",
      .string("address", admin.flatMap { Sockets.address($0)?.description } ?? listen.text))
  }

  private mutating func spread(_ sockets: [Int32]) {
    for (core, socket) in sockets.enumerated() { perCore[core].append(socket) }
  }

  private static func inherited(_ manager: ServiceManager) throws(StartFailure) -> [Int32] {
    do throws(ServiceManager.Failure) {
      return try manager.inheritedListeners().map(\.descriptor)
    } catch {
      throw StartFailure("cannot use the service manager's sockets: \(error)")
    }
  }

  private static func share(
    _ socket: Int32, cores: Int, _ inherited: ListeningSocket.Inherited
  ) throws(StartFailure) -> [Int32] {
    do throws(SystemError) {
      return try ListeningSocket.share(socket, cores: cores, inherited: inherited)
    } catch {
      throw StartFailure("cannot share a listening socket: \(error)")
    }
  }

  /// Binds one address. An address in use is tried for a second: the kernel takes a moment to let go of the sockets of
  /// a ring whose process was killed, and a supervisor restarts at once.
  private mutating func bind(
    _ listen: ListenAddress, _ address: Address, cores: Int, _ inherited: ListeningSocket.Inherited
  ) throws(StartFailure) -> [Int32] {
    var tries = Limits.bindTries
    var address = address
    while true {
      do throws(SystemError) {
        let sockets = try ListeningSocket.make(
          address, cores: cores, backlog: Limits.listenBacklog, inherited: inherited)
        if case .unix(let path) = address, !path.hasPrefix("@") { socketFiles.append(path) }
        return sockets
      } catch {
        if listen.host.isEmpty, address.family == AF_INET6,
          error.code == EAFNOSUPPORT || error.code == EADDRNOTAVAIL
        {
          // Every address, on a machine without IPv6.
          address = .v4(0, port: listen.port)
          continue
        }
        tries -= 1
        guard error.code == EADDRINUSE, tries > 0 else { throw Self.failure(listen, address, error) }
        usleep(Limits.bindPauseMicroseconds)
      }
    }
  }

  /// As Go words it, since scripts know it: `listen tcp 127.0.0.1:23790: bind: address already in use`.
  private static func failure(_ listen: ListenAddress, _ address: Address, _ error: SystemError)
    -> StartFailure
  {
    if case .unix(let path) = address { return StartFailure("listen unix \(path): bind: \(error)") }
    let name = listen.host.isEmpty ? ":\(listen.port)" : address.description
    return StartFailure("listen tcp \(name): bind: \(error)")
  }

  /// An endpoint that is the gateway itself would make every connection an endless chain. Also seen through an
  /// unspecified listen address, which etcd's own check lets escape.
  private static func guardAgainstLoop(
    _ listen: ListenAddress, _ address: Address, _ table: EndpointTable
  ) throws(StartFailure) {
    for endpoint in table.endpoints {
      for target in endpoint.addresses {
        let isSame = target == address || target.unmapped == address.unmapped
        let isLocal = address.isUnspecified && target.port == address.port && LocalAddresses.contains(target)
        guard isSame || isLocal else { continue }
        throw StartFailure(
          "SRV or endpoint (\(endpoint.name)->\(target)) should not resolve to the gateway listen addr (\(listen.text))"
        )
      }
    }
  }
}
