/// Everything `ringway gateway start` can be told. The first seven are etcd's (`server/etcdmain/gateway.go`); the
/// flag of each option and its help text stand in `GatewayOptions.flags`.
public struct GatewayOptions: FlagOptions, Equatable {
  /// `--listen-addr`: where to accept, each `host:port` or `unix:/path`.
  public var listenAddresses = ["127.0.0.1:23790"]
  /// `--discovery-srv`: the DNS domain of the SRV records; empty for no discovery.
  public var discoveryDomain = ""
  /// `--discovery-srv-name`: suffix of the SRV service name.
  public var discoveryServiceName = ""
  /// `--insecure-discovery`: take SRV records as they are.
  public var insecureDiscovery = false
  /// `--trusted-ca-file`: CA certificates for checking discovered endpoints; empty for none.
  public var trustedCAFile = ""
  /// `--endpoints`: where to forward, used when discovery is off or yields nothing.
  public var endpoints = ["127.0.0.1:2379"]
  /// `--retry-delay` as given; what to act on is `effectiveRetryDelay`.
  public var retryDelay = GoDuration.minutes(1)

  /// `--threads`: event loops, one thread each; 0 for one per core this process may use.
  public var threads = 0
  /// `--pin-threads`: bind each thread to a core.
  public var pinThreads = false
  /// `--io-backend`: the kernel interface to use.
  public var ioBackend = IOBackend.auto
  /// `--log-format`: how log lines look.
  public var logFormat = LogFormat.json
  /// `--log-level`: the least important lines to write.
  public var logLevel = LogLevel.info
  /// `--access-log`: one line per client connection.
  public var accessLog = false
  /// `--metrics-addr`: where to serve metrics; empty for nowhere.
  public var metricsAddress = ""
  /// `--connect-timeout`: how long one connection attempt to an endpoint may take.
  public var connectTimeout = GoDuration.seconds(2)
  /// `--race-delay`: when to try the next endpoint as well; 0 for only after a failure.
  public var raceDelay = GoDuration.milliseconds(250)
  /// `--health-check`: how to probe endpoints.
  public var healthCheck = HealthCheck.auto
  /// `--health-interval`: time between two probes of one endpoint.
  public var healthInterval = GoDuration.seconds(1)
  /// `--health-timeout`: how long a probe may take.
  public var healthTimeout = GoDuration.seconds(1)
  /// `--balance`: how to choose among healthy endpoints.
  public var balance = Balance.roundRobin
  /// `--endpoint-weights`: one weight for each of `endpoints`, or none at all.
  public var endpointWeights: [Int] = []
  /// `--max-connections`: open client connections; 0 for as many as descriptors allow.
  public var maxConnections = 0
  /// `--max-connections-per-source`: open connections of one client address; 0 for no limit.
  public var maxConnectionsPerSource = 0
  /// `--idle-timeout`: close a connection without traffic after this time; 0 for never.
  public var idleTimeout = GoDuration.zero
  /// `--tcp-keepalive`: idle time before the kernel probes a peer; 0 for no probes.
  public var tcpKeepalive = GoDuration.seconds(15)
  /// `--tcp-user-timeout`: how long sent bytes may stay unacknowledged; 0 for the kernel's limit.
  public var tcpUserTimeout = GoDuration.zero
  /// `--proxy-protocol-in`: whether clients send a PROXY header.
  public var proxyProtocolIn = ProxyProtocolIn.off
  /// `--proxy-protocol-out`: the PROXY header to send to endpoints.
  public var proxyProtocolOut = ProxyProtocolOut.off
  /// `--drain-timeout`: how long open connections may go on after a request to stop.
  public var drainTimeout = GoDuration.seconds(5)
  /// `--dns-servers`: servers to ask, each an address or `host:port`; empty for those of `/etc/resolv.conf`.
  public var dnsServers: [String] = []

  /// Names of the flags that were given on the command line.
  public var explicitFlags: Set<String> = []

  /// The defaults.
  public init() {}
}

extension GatewayOptions {
  /// Whether `--endpoints` was given. Falling back to a list nobody asked for would send clients to a wrong cluster.
  public var endpointsAreExplicit: Bool { explicitFlags.contains("endpoints") }

  /// The shortest time between two probes of one endpoint; shorter ones would only load etcd.
  public static let smallestProbeInterval = GoDuration.milliseconds(10)

  /// The period in which an endpoint that failed is tried again. As with etcd (`tcpproxy/userspace.go`) 0 stands for
  /// 5 minutes. A negative period makes etcd's timer fire without pause; here it is the smallest probe interval.
  public var effectiveRetryDelay: GoDuration {
    retryDelay == .zero ? .minutes(5) : max(retryDelay, GatewayOptions.smallestProbeInterval)
  }

  /// The kernel interface for input and output.
  public enum IOBackend: String, FlagChoice {
    /// io_uring where the kernel allows it, else epoll.
    case auto
    /// io_uring or no start.
    case ioUring = "io_uring"
    /// epoll.
    case epoll
  }

  /// The shape of log lines.
  public enum LogFormat: String, FlagChoice {
    /// One JSON object per line with etcd's keys.
    case json
    /// Columns for a person.
    case console
  }

  /// The importance of log lines, least first.
  public enum LogLevel: String, FlagChoice {
    /// Everything, connection by connection.
    case debug
    /// Normal operation.
    case info
    /// What may need attention.
    case warn
    /// What needs attention.
    case error
  }

  /// The way endpoints are probed.
  public enum HealthCheck: String, FlagChoice {
    /// Asks in the protocol that clients were seen to speak, HTTP or TLS; connects only until one is known.
    case auto
    /// A TCP connection.
    case tcp
    /// A TLS handshake.
    case tls
    /// etcd's `/health` over HTTP.
    case http
    /// No probes: an endpoint is healthy until a connection fails.
    case off
  }

  /// The way a healthy endpoint is chosen.
  public enum Balance: String, FlagChoice {
    /// In turn, by weight.
    case roundRobin = "round-robin"
    /// The one with the fewest open connections, by weight.
    case leastConnections = "least-connections"
  }

  /// Whether client connections begin with a PROXY header.
  public enum ProxyProtocolIn: String, FlagChoice {
    /// They do not.
    case off
    /// Every connection must begin with one, version 1 or 2.
    case on
  }

  /// The PROXY header at the beginning of connections to endpoints.
  public enum ProxyProtocolOut: String, FlagChoice {
    /// None.
    case off
    /// The text form.
    case v1
    /// The binary form.
    case v2
  }
}
