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
  private let perCore: [[Int32]]
  /// The metrics page's, if asked for.
  let admin: Int32?
  private let socketFiles: [String]

  func sockets(of core: Int) -> [Int32] { perCore[core] }

  /// Unix sockets leave their file behind.
  func removeSocketFiles() {
    for file in socketFiles { unsafe unlink(file) }
  }

  /// Binds everything, or takes over what a service manager has bound.
  static func make(
    _ options: GatewayOptions, _ shared: GatewayShared, _ table: EndpointTable, _ manager: ServiceManager,
    _ control: ControlCore
  ) throws(StartFailure) -> GatewayListeners {
    let cores = shared.links.count
    var perCore = [[Int32]](repeating: [], count: cores)
    var files: [String] = []
    let inherited = try inheritedListeners(manager)
    if !inherited.isEmpty {
      shared.log.info("listening on the service manager's sockets; --listen-addr is not used")
    }
    for listener in inherited {
      try spread(&perCore) { () throws(SystemError) in
        try ListeningSocket.share(listener.descriptor, cores: cores)
      }
    }
    for text in inherited.isEmpty ? options.listenAddresses : [] {
      let listen = try ListenAddress(text)
      let address = try control.resolve(listen)
      try guardAgainstLoop(listen, address, table)
      try spread(&perCore) { () throws(SystemError) in
        try ListeningSocket.make(
          address, cores: cores, backlog: Limits.listenBacklog,
          inherited: .init(keepalive: options.tcpKeepalive.span, userTimeout: options.tcpUserTimeout.span))
      } described: {
        "listen \(network(address)) \(bindName(listen, address)): bind: \($0)"
      }
      if case .unix(let path) = address, !path.hasPrefix("@") { files.append(path) }
    }
    for (core, sockets) in perCore.enumerated() where core == 0 {
      let names = sockets.compactMap { Sockets.address($0)?.description }
      shared.log.info("listening for client connections", .strings("addresses", names))
    }
    let admin = try makeAdmin(options, shared, control)
    return GatewayListeners(perCore: perCore, admin: admin, socketFiles: files)
  }

  private static func inheritedListeners(
    _ manager: ServiceManager
  ) throws(StartFailure) -> [ServiceManager.Listener] {
    do throws(ServiceManager.Failure) {
      return try manager.inheritedListeners()
    } catch {
      throw StartFailure("cannot use the service manager's sockets: \(error)")
    }
  }

  private static func spread(
    _ perCore: inout [[Int32]], _ make: () throws(SystemError) -> [Int32],
    described: (SystemError) -> String = { "cannot share a listening socket: \($0)" }
  ) throws(StartFailure) {
    do throws(SystemError) {
      for (core, socket) in try make().enumerated() { perCore[core].append(socket) }
    } catch {
      throw StartFailure(described(error))
    }
  }

  private static func network(_ address: Address) -> String {
    if case .unix = address { "unix" } else { "tcp" }
  }

  /// As Go names it in the error that scripts know: `listen tcp 127.0.0.1:23790: bind: address already in use`.
  private static func bindName(_ listen: ListenAddress, _ address: Address) -> String {
    if case .unix(let path) = address { return path }
    return listen.host.isEmpty ? ":\(listen.port)" : address.description
  }

  private static func makeAdmin(
    _ options: GatewayOptions, _ shared: GatewayShared, _ control: ControlCore
  ) throws(StartFailure) -> Int32? {
    guard !options.metricsAddress.isEmpty else { return nil }
    let listen = try ListenAddress(metrics: options.metricsAddress)
    let address = try control.resolve(listen)
    do throws(SystemError) {
      let socket = try ListeningSocket.make(
        address, cores: 1, backlog: 128, inherited: .init(keepalive: .seconds(30), userTimeout: .zero))
      let bound = Sockets.address(socket[0])?.description ?? listen.text
      shared.log.info("listening for metrics", .string("address", bound))
      return socket[0]
    } catch {
      throw StartFailure("listen \(network(address)) \(bindName(listen, address)): bind: \(error)")
    }
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
