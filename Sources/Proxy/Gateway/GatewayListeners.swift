internal import CUring
internal import Glibc
internal import Reactor

/// An address to listen on, as the operator wrote it.
struct ListenAddress {
  let text: String
  let host: String
  let address: Address?
  let port: UInt16

  /// A `--listen-addr`: `host:port`, `:port`, `[v6]:port` or `unix:path`. A host name is looked up later.
  init(_ text: String) throws(StartFailure) {
    self.text = text
    if text.hasPrefix("unix:") {
      let path = text.dropFirst(text.hasPrefix("unix://") ? 7 : 5)
      guard let unix = Address(unixPath: String(path)) else {
        throw StartFailure("failed to validate listen address: \(text)")
      }
      (address, host, port) = (unix, "", 0)
      return
    }
    guard let pair = try? HostPort(text), let number = pair.portNumber else {
      throw StartFailure("failed to validate listen address: \(text)")
    }
    host = pair.host
    port = number
    // An empty host is every address of both families, as everywhere else in Go; etcd's gateway refuses it.
    address =
      pair.host.isEmpty ? .v6(high: 0, low: 0, port: number, scope: 0) : Address(ip: pair.host, port: number)
  }

  /// A `--metrics-addr`: a URL with `http://`, a plain `host:port`, or `unix:///path`.
  init(metrics text: String) throws(StartFailure) {
    if text.hasPrefix("https://") {
      throw StartFailure("--metrics-addr is served as plain HTTP: use http:// (\(text))")
    }
    let rest = text.hasPrefix("http://") ? String(text.dropFirst(7)) : text
    let authority = rest.hasPrefix("unix:") ? rest : String(rest.prefix { $0 != "/" })
    do throws(StartFailure) {
      try self.init(authority)
    } catch {
      throw StartFailure("cannot parse \"\(text)\"; --metrics-addr is a URL such as http://127.0.0.1:9379")
    }
  }
}

/// The sockets a gateway listens on: for each core one per address, and one for the metrics page.
struct GatewayListeners: Sendable {
  private var perCore: [[Int32]]
  /// The metrics page's, if asked for.
  private(set) var admin: Int32?
  private var socketFiles: [String] = []

  func sockets(of core: Int) -> [Int32] { perCore[core] }

  /// Unix sockets leave their file behind.
  func removeSocketFiles() {
    for file in socketFiles { unsafe unlink(file) }
  }

  /// Binds everything, or takes over what a service manager has bound.
  init(
    _ shared: GatewayShared, _ table: EndpointTable, _ manager: ServiceManager, _ control: ControlCore
  ) throws(StartFailure) {
    perCore = [[Int32]](repeating: [], count: shared.links.count)
    let inherited = try Self.inherited(manager)
    if inherited.isEmpty {
      try bindAddresses(shared, table, control)
    } else {
      shared.log.info("listening on the service manager's sockets; --listen-addr is not used")
      let options = Self.inherited(shared.options)
      for socket in inherited { spread(try Self.share(socket, cores: perCore.count, options)) }
    }
    let names = (perCore.first ?? []).compactMap { Sockets.address($0)?.description }
    shared.log.info("listening for client connections", .strings("addresses", names))
    try bindAdmin(shared, control)
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

  private static func inherited(_ options: GatewayOptions) -> ListeningSocket.Inherited {
    .init(keepalive: options.tcpKeepalive.span, userTimeout: options.tcpUserTimeout.span)
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

  private mutating func bindAddresses(
    _ shared: GatewayShared, _ table: EndpointTable, _ control: ControlCore
  ) throws(StartFailure) {
    for text in shared.options.listenAddresses {
      let listen = try ListenAddress(text)
      let address = try control.resolve(listen)
      try Self.guardAgainstLoop(listen, address, table)
      spread(try bind(listen, address, cores: perCore.count, Self.inherited(shared.options)))
    }
  }

  private mutating func bindAdmin(_ shared: GatewayShared, _ control: ControlCore) throws(StartFailure) {
    guard !shared.options.metricsAddress.isEmpty else { return }
    let listen = try ListenAddress(metrics: shared.options.metricsAddress)
    let address = try control.resolve(listen)
    let inherited = ListeningSocket.Inherited(keepalive: .seconds(30), userTimeout: .zero)
    admin = try bind(listen, address, cores: 1, inherited).first
    let bound = admin.flatMap { Sockets.address($0)?.description } ?? listen.text
    shared.log.info("listening for metrics", .string("address", bound))
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

/// The addresses of this machine's interfaces.
enum LocalAddresses {
  /// Whether a connection to `address` ends on this machine: whether one could listen there.
  static func contains(_ address: Address) -> Bool {
    if case .unix = address { return false }
    let probe = socket(address.family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard probe >= 0 else { return false }
    defer { close(probe) }
    let anyPort: Address =
      switch address {
      case .v4(let bits, _): .v4(bits, port: 0)
      case .v6(let high, let low, _, let scope): .v6(high: high, low: low, port: 0, scope: scope)
      case .unix: address
      }
    return unsafe anyPort.withSocketAddress { name, length in unsafe bind(probe, name, length) == 0 }
  }
}
