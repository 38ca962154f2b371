internal import Reactor
internal import Synchronization

/// Where endpoints come from and how they are shared out, as the command line says it.
struct EndpointSettings: Sendable {
  let endpoints: [String]
  let endpointsAreExplicit: Bool
  let weights: [Int]
  let discoveryDomain: String
  let discoveryServiceName: String
  let insecureDiscovery: Bool
  let dnsServers: [String]
  /// For the check of discovered endpoints.
  let trustedCAFile: String
  let balance: GatewayOptions.Balance

  init(_ common: CommonOptions, trustedCAFile: String, balance: GatewayOptions.Balance) {
    endpoints = common.endpoints
    endpointsAreExplicit = common.endpointsAreExplicit
    weights = common.endpointWeights
    discoveryDomain = common.discoveryDomain
    discoveryServiceName = common.discoveryServiceName
    insecureDiscovery = common.insecureDiscovery
    dnsServers = common.dnsServers
    self.trustedCAFile = trustedCAFile
    self.balance = balance
  }
}

/// What all parts that deal with endpoints share, on whichever thread.
final class EndpointContext: Sendable {
  let settings: EndpointSettings
  let log: Log
  let board: EndpointBoard
  let names = EndpointNames()

  init(settings: EndpointSettings, log: Log, cores: Int) {
    self.settings = settings
    self.log = log
    board = EndpointBoard(cores: cores, slots: Limits.endpoints)
  }
}

/// The names behind the board's slots, for logs; written when endpoints change.
final class EndpointNames: Sendable {
  private let names = Mutex<[String]>([])

  func set(_ slot: Int, _ name: String) {
    names.withLock { names in
      while names.count <= slot { names.append("") }
      names[slot] = name
    }
  }

  /// Empty for a connection that never found an endpoint.
  func name(of slot: Int) -> String {
    names.withLock { slot >= 0 && slot < $0.count ? $0[slot] : "" }
  }
}
