/// Everything `ringway gateway start` can be told. The flag of each option and its help text stand in
/// `GatewayOptions.flags`, the seven of etcd's gateway (`server/etcdmain/gateway.go`) first.
public struct GatewayOptions: CommandOptions {
  /// What the gRPC proxy can be told as well.
  var common = CommonOptions()

  /// `--trusted-ca-file`: CA certificates for checking discovered endpoints; empty for none.
  public var trustedCAFile = ""
  /// `--retry-delay` as given; what to act on is `effectiveRetryDelay`.
  public var retryDelay = GoDuration.minutes(1)

  /// `--access-log`: one line per client connection.
  public var accessLog = false
  /// `--connect-timeout`: how long one connection attempt to an endpoint may take.
  public var connectTimeout = GoDuration.seconds(2)
  /// `--race-delay`: when to try the next endpoint as well; 0 for only after a failure.
  public var raceDelay = GoDuration.milliseconds(250)
  /// `--health-check`: how to probe endpoints.
  public var healthCheck = HealthCheck.auto
  /// `--balance`: how to choose among healthy endpoints.
  public var balance = Balance.roundRobin
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

  /// The defaults.
  public init() {}
}

extension GatewayOptions {
  /// The period in which an endpoint that failed is tried again. As with etcd (`tcpproxy/userspace.go`) 0 stands for
  /// 5 minutes. A negative period makes etcd's timer fire without pause; here it is the smallest probe interval.
  public var effectiveRetryDelay: GoDuration {
    retryDelay == .zero ? .minutes(5) : max(retryDelay, CommonOptions.smallestProbeInterval)
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
