internal import Reactor
internal import Synchronization

/// Where endpoints come from and how they are shared out, as the command line says it.
struct EndpointSettings: Sendable {
  /// Items of `--endpoints`, used when discovery is off or finds nothing.
  var endpoints: [String] = []
  /// Whether the operator gave them: falling back to a list nobody asked for would send clients to a wrong cluster.
  var endpointsAreExplicit = false
  /// One weight for each of `endpoints`, or none at all.
  var weights: [Int] = []
  /// `--discovery-srv`, empty for no discovery.
  var discoveryDomain = ""
  /// `--discovery-srv-name`.
  var discoveryServiceName = ""
  /// `--insecure-discovery`.
  var insecureDiscovery = false
  /// `--trusted-ca-file`, for the check of discovered endpoints.
  var trustedCAFile = ""
  /// `--dns-servers`, empty for those of the system.
  var dnsServers: [String] = []
  /// `--balance` among connections.
  var balance = GatewayOptions.Balance.roundRobin
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
