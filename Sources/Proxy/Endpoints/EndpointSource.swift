internal import Reactor

/// Where the endpoints come from: the command line, or SRV records, and then DNS for their addresses.
final class EndpointSource {
  private unowned let core: Core
  private let context: EndpointContext
  private let resolver: Resolver
  private let directory: EndpointDirectory
  private var discovery: Discovery?

  init(core: Core, context: EndpointContext, resolverOwner: UInt8, discoveryOwner: UInt8) throws(StartFailure)
  {
    self.core = core
    self.context = context
    do {
      resolver = try Resolver(core: core, owner: resolverOwner, servers: context.settings.dnsServers)
    } catch {
      throw StartFailure("cannot use DNS: \(error)")
    }
    directory = EndpointDirectory(core: core, context: context, resolver: resolver)
    if !context.settings.discoveryDomain.isEmpty {
      discovery = Discovery(core: core, owner: discoveryOwner, context: context, resolver: resolver)
    }
  }

  /// Whether the first endpoint that was discovered is one of the TLS records; nil without discovery.
  private(set) var discoversTLS: Bool?

  /// Told whenever the table changes.
  var changed: (EndpointTable) -> Void {
    get { directory.changed }
    set { directory.changed = newValue }
  }

  /// The table in force.
  var table: EndpointTable { directory.table }

  /// True when every name has been looked up once.
  var isSettled: Bool { discovery?.isSettled != false && directory.outstanding == 0 }

  func start() {
    guard let discovery else { return listStatic() }
    discovery.found = { [unowned self] services in
      // Nothing found leaves what was there in force; etcd's gateway would go to 127.0.0.1:2379 without a word.
      if let first = services.first {
        discoversTLS = discoversTLS ?? first.name.isTLSHint
        directory.list(services)
      } else if directory.names.isEmpty, context.settings.endpointsAreExplicit {
        context.log.warn("discovery found no endpoint; using --endpoints")
        listStatic()
      }
    }
    discovery.run()
  }

  /// Takes what etcd's member list says for the endpoints; false when that is what there is already.
  func replace(_ urls: [String]) -> Bool {
    let names = urls.compactMap { try? EndpointName($0) }
    guard !names.isEmpty, Set(names.map(\.displayName)) != Set(directory.names) else { return false }
    directory.list(names.map { ($0, 0, 0) })
    return true
  }

  private func listStatic() {
    let weights = context.settings.weights
    var listed: [(name: EndpointName, priority: UInt16, weight: UInt16)] = []
    for (index, text) in context.settings.endpoints.enumerated() {
      guard let name = try? EndpointName(text) else { continue }
      let weight = index < weights.count ? UInt16(clamping: weights[index]) : 0
      listed.append((name, 0, weight))
      if name.isTLSHint { context.board.learn(.tls) }
    }
    directory.list(listed)
  }

  /// The first table.
  ///
  /// - Throws: when no name has an address. One that has none is only a warning while another works.
  func firstTable() throws(StartFailure) -> EndpointTable {
    if let failure = discovery?.failure, directory.names.isEmpty { throw StartFailure(failure) }
    if table.endpoints.isEmpty {
      guard let first = directory.unresolved.first else { throw StartFailure("no endpoints found") }
      throw StartFailure("failed to resolve endpoint host: \(first.host)")
    }
    return table
  }

  /// The first address of a host, or nil; calls `wait` until the answer has come.
  func lookUp(_ host: String, port: UInt16, whileWaiting wait: () -> Void) -> Address? {
    var answer: Result<Resolver.Lookup, Resolver.Failure>?
    resolver.addresses(of: host, port: port) { answer = $0 }
    while answer == nil { wait() }
    return try? answer?.get().addresses.first
  }

  func tick() {
    directory.tick()
    discovery?.tick()
  }

  /// Looks everything up again.
  func refresh() {
    discovery?.run()
    directory.refreshAll()
  }

  func complete(_ completion: Completion) {
    if discovery?.complete(completion) != true { resolver.complete(completion) }
  }

  func expire(_ token: Token) {
    if discovery?.expire(token) != true { resolver.expire(token) }
  }
}
