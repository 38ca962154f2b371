extension GatewayOptions {
  static let word = "gateway"
  static let summary = "start the gateway"
  static let examples = [
    "--endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379",
    "--listen-addr 0.0.0.0:2379 --discovery-srv example.com --metrics-addr 127.0.0.1:9379",
  ]
  static let flags = FlagSet(command: "start", groups: [etcdFlags, ownFlags])

  private static let etcdFlags = FlagGroup<GatewayOptions>(
    "Flags of etcd gateway",
    (CommonFlags.discovery + [
      CommonFlags.endpoints(
        "etcd members to forward to, comma separated host:port; name every member of the cluster"),
      CommonFlags.listen,
      Flag(
        "retry-delay", \.retryDelay,
        "longest time before a failed endpoint is tried again (0 = 5m, below 10ms = 10ms); never more than 1s is waited anyway"
      ),
      Flag(
        "trusted-ca-file", \.trustedCAFile,
        "PEM file of the CA that signed the members' certificates, to check what --discovery-srv finds"),
    ]).sorted { $0.name < $1.name })

  private static let ownFlags = FlagGroup<GatewayOptions>(
    "Flags of Ringway",
    CommonFlags.threads + [access, metrics] + CommonFlags.stopping + endpointFlags
      + CommonFlags.admission + connectionFlags)

  private static let access = Flag<GatewayOptions>(
    "access-log", \.accessLog,
    "write one log line per client connection; switch on to see who connects where")

  private static let metrics = CommonFlags<GatewayOptions>.metrics(
    "where to serve /metrics and /health: http://host:port, host:port or unix:///path (empty = nowhere)")

  private static let endpointFlags: [Flag<GatewayOptions>] =
    [
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
    ] + CommonFlags.health + [
      Flag(
        "balance", \.balance,
        "how connections are spread; least-connections if some live much longer than others"),
      CommonFlags.weights("empty = equal shares"),
      Flag(
        "proxy-protocol-out", \.proxyProtocolOut,
        "send a PROXY header with the client's address; only if a proxy behind expects it, etcd itself does not"
      ),
    ]

  private static let connectionFlags: [Flag<GatewayOptions>] = [
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
