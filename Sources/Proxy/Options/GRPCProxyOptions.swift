/// Everything `ringway grpc-proxy start` can be told. The flag of each option and its help text stand in
/// `GRPCProxyOptions.flags`, those of etcd's proxy (`server/etcdmain/grpc_proxy.go`) first.
///
/// Values are kept as they were given. Where etcd or its gRPC library reads another meaning into some of
/// them, `GRPCProxyOptions+Meaning.swift` has what to act on.
struct GRPCProxyOptions: CommandOptions {
  /// What the gateway can be told as well.
  var common = CommonOptions()

  // MARK: Clients

  /// `--advertise-client-url`: the address that member lists show; empty to show etcd's own members.
  var advertiseURL = "127.0.0.1:23790"
  /// `--namespace`: what is put before every key.
  var namespace = ""
  /// `--namespace-strict`: refuse calls that reach outside of the namespace.
  var namespaceIsStrict = false
  /// `--resolver-prefix`: where this proxy registers; empty for nowhere.
  var resolverPrefix = ""
  /// `--resolver-ttl`: seconds until the registration of a dead proxy disappears.
  var resolverTTL = 0
  /// `--max-concurrent-streams`: what one client connection may have open at a time.
  var maxConcurrentStreams = UInt32.max
  /// `--grpc-keepalive-min-time`: what clients must leave between two pings.
  var keepaliveMinTime = GoDuration.seconds(5)
  /// `--grpc-keepalive-interval`: silence after which a client is pinged.
  var keepaliveInterval = GoDuration.minutes(120)
  /// `--grpc-keepalive-timeout`: what a client has to answer that ping.
  var keepaliveTimeout = GoDuration.seconds(20)

  // MARK: etcd

  /// `--max-send-bytes` as given; what to act on is `sendLimit`.
  var maxSendBytes = 1_572_864
  /// `--max-recv-bytes` as given; what to act on is `receiveLimit`.
  var maxReceiveBytes = Int(Int32.max)
  /// `--endpoints-auto-sync-interval`: period of taking the endpoints from etcd's member list; 0 for never.
  var autoSyncInterval = GoDuration.zero
  /// `--dial-keepalive-time`: period of pings to etcd; 0 for none.
  var dialKeepaliveTime = GoDuration.zero
  /// `--dial-keepalive-timeout`: what etcd has to answer such a ping.
  var dialKeepaliveTimeout = GoDuration.seconds(20)
  /// `--permit-without-stream`: send those pings on idle connections, too.
  var permitWithoutStream = false
  /// `--upstream-timeout`: how long it may take until a connection to etcd can carry calls.
  var upstreamTimeout = GoDuration.seconds(2)
  /// `--balance`: how to choose among healthy endpoints.
  var balance = Balance.sticky

  // MARK: Coalescing

  /// `--cache`: which reads are answered from memory.
  var cache = CacheSettings.Mode.watch
  /// `--cache-bytes`: memory for it, of the whole process.
  var cacheBytes = 64 << 20
  /// `--cache-max-staleness`: how old an answer may be that no watch keeps right.
  var cacheMaxStaleness = GoDuration.seconds(1)
  /// `--consistent-cache`: linearizable reads as well.
  var consistentCache = false
  /// `--bypass`: prefixes of keys that are passed on one to one.
  var bypassPrefixes: [String] = []
  /// `--watch-cover`: prefixes of keys that have one watch upstream for all ranges inside.
  var coverPrefixes: [String] = []
  /// `--watch-cover-from`: ranges under one prefix from which it is covered unasked; 0 is never.
  var coverFrom = 1000

  // MARK: TLS towards etcd

  /// `--cert`: client certificate; its subject must have no common name.
  var certificateFile = ""
  /// `--key`: its key.
  var keyFile = ""
  /// `--cacert`: who may have signed etcd's certificates; empty for the system's authorities.
  var caFile = ""
  /// `--insecure-skip-tls-verify`: take any certificate.
  var skipsVerification = false

  // MARK: TLS towards clients

  /// `--cert-file`: server certificate.
  var listenCertificateFile = ""
  /// `--key-file`: its key.
  var listenKeyFile = ""
  /// `--trusted-ca-file`: who must have signed the clients' certificates; empty to ask for none.
  var listenTrustedCAFile = ""
  /// `--client-crl-file`: revoked client certificates.
  var listenCRLFile = ""
  /// `--listen-cipher-suites`: TLS 1.2 suites in order of preference; empty for the library's.
  var listenCipherSuites: [String] = []
  /// `--tls-min-version` as given; what to act on is `leastTLSVersion`.
  var tlsMinVersion = "TLS1.2"
  /// `--tls-max-version` as given; what to act on is `greatestTLSVersion`.
  var tlsMaxVersion = ""
  /// `--auto-tls`: a certificate of our own making if no file is named.
  var autoTLS = false
  /// `--self-signed-cert-validity`: its lifetime in years.
  var selfSignedYears: UInt = 1
  /// `--data-dir`: where it is kept.
  var dataDirectory = "default.proxy"

  // MARK: Looking inside

  /// `--debug`: write debug lines, whatever `--log-level` says.
  var debug = false
  /// `--experimental-enable-grpc-logging`: one line for every request and response.
  var logsCalls = false
  /// `--enable-pprof`: serve `/debug/pprof/`, which shows where the proxy stands.
  var pprof = false
  /// `--experimental-leasing-prefix`: accepted; see `startWarnings`.
  var leasingPrefix = ""
  /// `--experimental-serializable-ordering`: reads never show an older revision than one shown before.
  var serializableOrdering = false
}

extension GRPCProxyOptions {
  /// The way a healthy endpoint is chosen.
  enum Balance: String, FlagChoice {
    /// One for all calls of a core until it fails.
    case sticky
    /// Each call goes to the next.
    case roundRobin = "round-robin"
    /// In turn by weight.
    case weighted
    /// The one that answers soonest.
    case leastLatency = "least-latency"
  }
}
