extension GatewayOptions {
  /// The flags of `ringway gateway start`: the one table that parses and prints help.
  public static let flags = FlagSet(command: "start", groups: [etcdFlags, ownFlags])

  private static let etcdFlags = FlagGroup<GatewayOptions>(
    "Flags of etcd gateway",
    [
      Flag(
        "discovery-srv", \.discoveryDomain,
        "DNS domain whose SRV records name the etcd members; set it instead of --endpoints"),
      Flag(
        "discovery-srv-name", \.discoveryServiceName,
        "suffix of the SRV service name (_etcd-client-NAME); set it when one domain holds several clusters"),
      Flag(
        "endpoints", \.endpoints,
        "etcd members to forward to, comma separated host:port; name every member of the cluster"),
      Flag(
        "insecure-discovery", \.insecureDiscovery,
        "use SRV records unchecked, also plain http ones; only where you trust DNS"),
      Flag(
        "listen-addr", \.listenAddresses,
        "addresses to accept clients on, comma separated host:port or unix:/path; may be repeated"),
      Flag(
        "retry-delay", \.retryDelay,
        "longest time before a failed endpoint is tried again (0 = 5m, below 10ms = 10ms); never more than 1s is waited anyway"
      ),
      Flag(
        "trusted-ca-file", \.trustedCAFile,
        "PEM file of the CA that signed the members' certificates, to check what --discovery-srv finds"),
    ])

  private static let ownFlags = FlagGroup<GatewayOptions>(
    "Flags of Ringway",
    runFlags + endpointFlags + connectionFlags)

  private static let runFlags: [Flag<GatewayOptions>] = [
    Flag(
      "threads", \.threads,
      "threads that move bytes (0 = one per core this process may use); lower it to leave cores to others"),
    Flag(
      "pin-threads", \.pinThreads,
      "bind each thread to one core; for machines that do nothing else"),
    Flag(
      "io-backend", \.ioBackend,
      "kernel interface; auto takes epoll where io_uring is not allowed, force one to look for a fault"),
    Flag(
      "log-format", \.logFormat, "shape of log lines on stderr; console is easier on the eyes in a terminal"),
    Flag(
      "log-level", \.logLevel, "least important log lines to write; debug shows why an endpoint was chosen"),
    Flag(
      "access-log", \.accessLog,
      "write one log line per client connection; switch on to see who connects where"),
    Flag(
      "metrics-addr", \.metricsAddress,
      "where to serve /metrics and /health: http://host:port, host:port or unix:///path (empty = nowhere)"),
    Flag(
      "drain-timeout", \.drainTimeout,
      "on SIGTERM, time open connections get to finish (0 = none); keep it below your supervisor's kill time"),
    Flag(
      "dns-servers", \.dnsServers,
      "DNS servers to ask, comma separated ip or host:port (empty = those of /etc/resolv.conf)"),
  ]

  private static let endpointFlags: [Flag<GatewayOptions>] = [
    Flag(
      "connect-timeout", \.connectTimeout,
      "longest time to connect to one endpoint; raise it for far away members"),
    Flag(
      "race-delay", \.raceDelay,
      "try the next endpoint too if the first is silent so long (0 = wait for it); raise on slow links"
    ),
    Flag(
      "health-check", \.healthCheck,
      "how endpoints are probed; auto asks what clients were seen to speak (HTTP or TLS), off only notices failed connections"
    ),
    Flag(
      "health-interval", \.healthInterval,
      "time between two probes of an endpoint, 10ms or more; raise to probe less"),
    Flag("health-timeout", \.healthTimeout, "longest time a probe may take; raise it if slow endpoints flap"),
    Flag(
      "balance", \.balance,
      "how connections are spread; least-connections if some live much longer than others"),
    Flag(
      "endpoint-weights", \.endpointWeights,
      "share of each endpoint, comma separated 1..65535, one per --endpoints in order (empty = equal shares)"),
    Flag(
      "proxy-protocol-out", \.proxyProtocolOut,
      "send a PROXY header with the client's address; only if a proxy behind expects it, etcd itself does not"
    ),
  ]

  private static let connectionFlags: [Flag<GatewayOptions>] = [
    Flag(
      "max-connections", \.maxConnections,
      "most client connections at a time (0 = as many as descriptors allow); set it to protect etcd"),
    Flag(
      "max-connections-per-source", \.maxConnectionsPerSource,
      "most connections of one client address (0 = no limit); set it against a client that leaks them"),
    Flag(
      "idle-timeout", \.idleTimeout,
      "close connections silent for so long (0 = never); a quiet watch is silent too, so keep it long"),
    Flag(
      "tcp-keepalive", \.tcpKeepalive,
      "idle time before the kernel asks for the peer, 1s or more (0 = off); lower it behind firewalls"),
    Flag(
      "tcp-user-timeout", \.tcpUserTimeout,
      "give up a peer that acknowledges nothing for so long (0 = kernel's, about 15m); try 30s"),
    Flag(
      "proxy-protocol-in", \.proxyProtocolIn,
      "on: every client must begin with a PROXY v1 or v2 header; only behind a load balancer that sends it"),
  ]
}
