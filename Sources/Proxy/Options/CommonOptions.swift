/// What both commands can be told, with the same flags, defaults and checks.
struct CommonOptions: Equatable, Sendable {
  /// `--listen-addr`: where to accept clients, each `host:port` or `unix:/path`.
  var listenAddresses = ["127.0.0.1:23790"]
  /// `--endpoints`: the etcd members, used when discovery is off or yields nothing.
  var endpoints = ["127.0.0.1:2379"]
  /// `--endpoint-weights`: one weight for each of `endpoints`, or none at all.
  var endpointWeights: [Int] = []
  /// `--discovery-srv`: the DNS domain of the SRV records; empty for no discovery.
  var discoveryDomain = ""
  /// `--discovery-srv-name`: suffix of the SRV service name.
  var discoveryServiceName = ""
  /// `--insecure-discovery`: take SRV records as they are.
  var insecureDiscovery = false
  /// `--dns-servers`: servers to ask, each an address or `host:port`; empty for those of `/etc/resolv.conf`.
  var dnsServers: [String] = []

  /// `--threads`: event loops, one thread each; 0 for one per core this process may use.
  var threads = 0
  /// `--pin-threads`: bind each thread to a core.
  var pinThreads = false
  /// `--io-backend`: the kernel interface to use.
  var ioBackend = IOBackend.auto
  /// `--log-format`: how log lines look.
  var logFormat = LogFormat.json
  /// `--log-level`: the least important lines to write.
  var logLevel = LogLevel.info
  /// `--metrics-addr`: where to serve metrics; empty for nowhere. The two commands take different forms.
  var metricsAddress = ""
  /// `--drain-timeout`: how long open connections may go on after a request to stop.
  var drainTimeout = GoDuration.seconds(5)

  /// `--health-interval`: time between two probes of one endpoint.
  var healthInterval = GoDuration.seconds(1)
  /// `--health-timeout`: how long a probe may take.
  var healthTimeout = GoDuration.seconds(1)
  /// `--max-connections`: open client connections; 0 for as many as descriptors allow.
  var maxConnections = 0
  /// `--max-connections-per-source`: open connections of one client address; 0 for no limit.
  var maxConnectionsPerSource = 0

  /// Names of the flags that were given on the command line.
  var explicitFlags: Set<String> = []

  /// Whether `--endpoints` was given. To fall back to a list nobody asked for would send clients to a wrong
  /// cluster.
  var endpointsAreExplicit: Bool { explicitFlags.contains("endpoints") }
}

extension CommonOptions {
  /// The kernel interface for input and output.
  enum IOBackend: String, FlagChoice {
    /// io_uring where the kernel allows it, else epoll.
    case auto
    /// io_uring or no start.
    case ioUring = "io_uring"
    case epoll
  }

  /// The shape of log lines.
  enum LogFormat: String, FlagChoice {
    /// One JSON object per line with etcd's keys.
    case json
    /// Columns for a person.
    case console
  }

  /// The importance of log lines, least first.
  enum LogLevel: String, FlagChoice {
    case debug, info, warn, error
  }
}

/// The options of a command that has the common ones among its own: `options.threads` stands for
/// `options.common.threads`.
@dynamicMemberLookup
protocol CommandOptions: FlagOptions, Equatable {
  /// The word that names the command, before `start`.
  static var word: String { get }
  /// One line that says what `start` does.
  static var summary: String { get }
  /// Flags of command lines worth imitating, one example a line.
  static var examples: [String] { get }
  /// The one table that parses and prints help.
  static var flags: FlagSet<Self> { get }

  var common: CommonOptions { get set }

  /// The first thing wrong with the options taken together, or nil. Looks at values only: names are not
  /// resolved and files not opened.
  func firstProblem() -> OptionProblem?
}

extension CommandOptions {
  subscript<Value>(dynamicMember path: WritableKeyPath<CommonOptions, Value>) -> Value {
    get { common[keyPath: path] }
    set { common[keyPath: path] = newValue }
  }

  subscript<Value>(dynamicMember path: KeyPath<CommonOptions, Value>) -> Value { common[keyPath: path] }
}
