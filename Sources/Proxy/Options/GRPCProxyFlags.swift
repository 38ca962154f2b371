extension GRPCProxyOptions {
  static let word = "grpc-proxy"
  static let summary = "start the grpc proxy"
  static let examples = [
    "--endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 --advertise-client-url 10.0.0.9:23790",
    "--endpoints https://10.0.0.1:2379 --cacert etcd-ca.pem --cert-file proxy.pem --key-file proxy-key.pem",
  ]
  static let flags = FlagSet(command: "start", groups: [etcdFlags, ownFlags])

  private static let etcdFlags = FlagGroup<GRPCProxyOptions>(
    "Flags of etcd grpc-proxy",
    (clientFlags + upstreamFlags + upstreamTLSFlags + listenTLSFlags + insightFlags)
      .sorted { $0.name < $1.name })

  private static let ownFlags = FlagGroup<GRPCProxyOptions>(
    "Flags of Ringway",
    CommonFlags.threads + CommonFlags.stopping + ownUpstreamFlags + CommonFlags.health + cacheFlags
      + CommonFlags.admission + [
        Flag(
          "namespace-strict", \.namespaceIsStrict,
          "refuse calls that reach outside of --namespace, such as snapshots; set it when clients share a cluster"
        )
      ])

  private static let ownUpstreamFlags: [Flag<GRPCProxyOptions>] = [
    Flag(
      "upstream-timeout", \.upstreamTimeout,
      "longest time to connect to an endpoint, TLS included; raise it for far away members"),
    Flag(
      "balance", \.balance,
      "how calls are spread; sticky keeps to one endpoint until it fails, the others even out etcd's load"),
    CommonFlags.weights("for --balance weighted"),
  ]

  private static let cacheFlags: [Flag<GRPCProxyOptions>] = [
    Flag(
      "cache", \.cache,
      "reads answered from memory; watch keeps them right by watching etcd, etcd only lets them age, off asks etcd always"
    ),
    Flag(
      "cache-bytes", \.cacheBytes,
      "memory for cached answers, for the whole process; raise it if many large ranges are read"),
    Flag(
      "cache-max-staleness", \.cacheMaxStaleness,
      "how old a cached answer may be while no watch keeps it right; 0 shows only what is kept right"),
    Flag(
      "consistent-cache", \.consistentCache,
      "answer linearizable reads from the cache, too, after one small read that tells how far etcd is; needs --cache=watch"
    ),
    Flag(
      "bypass", \.bypassPrefixes,
      "prefixes of keys that are neither cached nor shared, comma separated; may be repeated"),
    Flag(
      "watch-cover", \.coverPrefixes,
      "prefixes with one watch upstream for all watches inside, comma separated; for many different keys, most of them watched"
    ),
    Flag(
      "watch-cover-from", \.coverFrom,
      "different keys or ranges under one prefix and event loop from which they share a watch upstream unasked; 0 is never"
    ),
  ]

  private static let clientFlags: [Flag<GRPCProxyOptions>] = [
    CommonFlags.listen,
    CommonFlags.metrics(
      "where to serve /metrics and /health beside the client port: http://host:port, https://host:port or unix:///path"
    ),
    Flag(
      "advertise-client-url", \.advertiseURL,
      "address that member lists show for this proxy (empty = show etcd's members); clients must reach it"),
    Flag(
      "resolver-prefix", \.resolverPrefix,
      "key prefix under which proxies register, to find each other; the same for all, needs --resolver-ttl"),
    Flag(
      "resolver-ttl", \.resolverTTL,
      "seconds until the registration of a proxy that died disappears; 10 or more outlives a change of leader"
    ),
    Flag(
      "namespace", \.namespace,
      "put before every key, so that clients see only keys that begin with it; end it with / or the like"),
    Flag(
      "max-concurrent-streams", \.maxConcurrentStreams,
      "calls and watch streams one client connection may have open; lower it against a client that leaks them"
    ),
    Flag(
      "grpc-keepalive-min-time", \.keepaliveMinTime,
      "clients that ping more often than this are disconnected (0 = 5m); lower it if clients ping often"),
    Flag(
      "grpc-keepalive-interval", \.keepaliveInterval,
      "silence after which a client is pinged, 1s or more (0 = 2h); lower it behind firewalls"),
    Flag(
      "grpc-keepalive-timeout", \.keepaliveTimeout,
      "disconnect a client that has not answered a ping for so long"),
  ]

  private static let upstreamFlags: [Flag<GRPCProxyOptions>] =
    CommonFlags.discovery + [
      CommonFlags.endpoints(
        "etcd members, comma separated host:port, http:// or https://host:port, unix:/path or unixs:/path; name all"
      ),
      Flag(
        "endpoints-auto-sync-interval", \.autoSyncInterval,
        "take the endpoints from etcd's member list this often (0 = never); set it if members come and go"),
      Flag(
        "dial-keepalive-time", \.dialKeepaliveTime,
        "ping etcd this often, 10s or more (0 = leave it to --health-interval)"),
      Flag(
        "dial-keepalive-timeout", \.dialKeepaliveTimeout,
        "leave a connection to etcd on which such a ping was not answered for so long"),
      Flag(
        "permit-without-stream", \.permitWithoutStream,
        "send the pings of --dial-keepalive-time without calls, too; etcd ends connections that ping too often"
      ),
      Flag(
        "max-send-bytes", \.maxSendBytes,
        "longest request to send to etcd in bytes (0 = 2 MiB); unless given, etcd's own limit decides"),
      Flag(
        "max-recv-bytes", \.maxReceiveBytes,
        "longest answer to take from etcd in bytes (0 = 2 GiB); lower it to protect memory"),
    ]

  private static let upstreamTLSFlags: [Flag<GRPCProxyOptions>] = [
    Flag(
      "cert", \.certificateFile,
      "PEM file of the client certificate shown to etcd; its subject must have no common name"),
    Flag("key", \.keyFile, "PEM file of the key of --cert"),
    Flag(
      "cacert", \.caFile,
      "PEM file of the CA that signed etcd's certificates (empty = the system's CAs)"),
    Flag(
      "insecure-skip-tls-verify", \.skipsVerification,
      "take any certificate from etcd; for tests only, anyone in between can then read and change everything"
    ),
  ]

  private static let listenTLSFlags: [Flag<GRPCProxyOptions>] = [
    Flag(
      "cert-file", \.listenCertificateFile,
      "PEM file of the certificate shown to clients; with --key-file it switches TLS on"),
    Flag("key-file", \.listenKeyFile, "PEM file of the key of --cert-file"),
    Flag(
      "trusted-ca-file", \.listenTrustedCAFile,
      "PEM file of the CA that signed the clients' certificates; clients without one are then refused"),
    Flag(
      "client-crl-file", \.listenCRLFile,
      "file of revoked client certificates, DER or PEM; while it cannot be read no client is let in"),
    Flag(
      "listen-cipher-suites", \.listenCipherSuites,
      "TLS 1.2 cipher suites for clients, comma separated IANA names in order of preference"),
    Flag(
      "tls-min-version", \.tlsMinVersion, "oldest TLS version for clients, TLS1.2 or TLS1.3 (empty = either)"),
    Flag(
      "tls-max-version", \.tlsMaxVersion,
      "newest TLS version for clients, TLS1.2 or TLS1.3 (empty = the newest)"),
    Flag(
      "auto-tls", \.autoTLS,
      "make a certificate if no file for TLS towards clients is named; for tests, as clients have no CA to check it by"
    ),
    Flag(
      "self-signed-cert-validity", \.selfSignedYears, "years for which the certificate of --auto-tls is valid"
    ),
    Flag("data-dir", \.dataDirectory, "directory that keeps the certificate of --auto-tls"),
  ]

  private static let insightFlags: [Flag<GRPCProxyOptions>] = [
    Flag("debug", \.debug, "the same as --log-level=debug"),
    Flag(
      "experimental-enable-grpc-logging", \.logsCalls,
      "a log line for every message of every call, with its size; to look for a fault, not for good"),
    Flag("enable-pprof", \.pprof, "serve /debug/pprof/: where the proxy stands, instead of profiles of Go"),
    Flag(
      "experimental-leasing-prefix", \.leasingPrefix, "without effect; no lease of etcd is taken for reads"),
    Flag(
      "experimental-serializable-ordering", \.serializableOrdering,
      "ask another endpoint when an answer is older than one that was given before"),
  ]
}
