/// The flags of `CommonOptions`, for the tables of both commands. What a flag does is the same in both; texts
/// that would not be are passed in.
enum CommonFlags<Options: CommandOptions> {
  static var discovery: [Flag<Options>] {
    [
      Flag(
        "discovery-srv", \.common.discoveryDomain,
        "DNS domain whose SRV records name the etcd members; set it instead of --endpoints"),
      Flag(
        "discovery-srv-name", \.common.discoveryServiceName,
        "suffix of the SRV service name (_etcd-client-NAME); set it when one domain holds several clusters"),
      Flag(
        "insecure-discovery", \.common.insecureDiscovery,
        "use SRV records unchecked, also plain http ones; only where you trust DNS"),
    ]
  }

  static func endpoints(_ usage: String) -> Flag<Options> { Flag("endpoints", \.common.endpoints, usage) }

  static var listen: Flag<Options> {
    Flag(
      "listen-addr", \.common.listenAddresses,
      "addresses to accept clients on, comma separated host:port or unix:/path; may be repeated")
  }

  static func metrics(_ usage: String) -> Flag<Options> {
    Flag("metrics-addr", \.common.metricsAddress, usage)
  }

  static var threads: [Flag<Options>] {
    [
      Flag(
        "threads", \.common.threads,
        "threads that move bytes (0 = one per core this process may use); lower it to leave cores to others"),
      Flag(
        "pin-threads", \.common.pinThreads, "bind each thread to one core; for machines that do nothing else"
      ),
      Flag(
        "io-backend", \.common.ioBackend,
        "kernel interface; auto takes epoll where io_uring is not allowed, force one to look for a fault"),
      Flag(
        "log-format", \.common.logFormat,
        "shape of log lines on stderr; console is easier on the eyes in a terminal"),
      Flag(
        "log-level", \.common.logLevel,
        "least important log lines to write; debug shows why an endpoint was chosen"),
    ]
  }

  static var stopping: [Flag<Options>] {
    [
      Flag(
        "drain-timeout", \.common.drainTimeout,
        "on SIGTERM, time open connections get to finish (0 = none); keep it below your supervisor's kill time"
      ),
      Flag(
        "dns-servers", \.common.dnsServers,
        "DNS servers to ask, comma separated ip or host:port (empty = those of /etc/resolv.conf)"),
    ]
  }

  static var health: [Flag<Options>] {
    [
      Flag(
        "health-interval", \.common.healthInterval,
        "time between two probes of an endpoint, 10ms or more; raise to probe less"),
      Flag(
        "health-timeout", \.common.healthTimeout,
        "longest time a probe may take; raise it if slow endpoints flap"),
    ]
  }

  static func weights(_ condition: String) -> Flag<Options> {
    Flag(
      "endpoint-weights", \.common.endpointWeights,
      "share of each endpoint, comma separated 1..65535, one per --endpoints in order (\(condition))")
  }

  static var admission: [Flag<Options>] {
    [
      Flag(
        "max-connections", \.common.maxConnections,
        "most client connections at a time (0 = as many as descriptors allow); set it to protect etcd"),
      Flag(
        "max-connections-per-source", \.common.maxConnectionsPerSource,
        "most connections of one client address (0 = no limit); set it against a client that leaks them"),
    ]
  }
}
