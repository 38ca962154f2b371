import Testing

@testable import Proxy

@Suite struct OptionsGRPCProxyTests {
  private func problem(_ change: (inout GRPCProxyOptions) -> Void) -> OptionProblem? {
    var options = GRPCProxyOptions()
    change(&options)
    return options.firstProblem()
  }

  private func parsed(_ arguments: String...) throws -> GRPCProxyOptions {
    var options = GRPCProxyOptions()
    options.common.explicitFlags = try GRPCProxyOptions.flags.parse(arguments, into: &options).explicit
    return options
  }

  @Test func defaultsAreFine() { #expect(GRPCProxyOptions().firstProblem() == nil) }

  @Test func everyFlagFillsItsOwnOption() throws {
    let arguments = [
      "--listen-addr=l:1", "--metrics-addr=http://m:1", "--endpoints=e:1",
      "--endpoints-auto-sync-interval=1s",
      "--discovery-srv=d", "--discovery-srv-name=n", "--insecure-discovery", "--dial-keepalive-time=2s",
      "--dial-keepalive-timeout=3s", "--permit-without-stream", "--advertise-client-url=a",
      "--resolver-prefix=p", "--resolver-ttl=4", "--namespace=s", "--enable-pprof", "--data-dir=dir",
      "--max-send-bytes=5", "--max-recv-bytes=6", "--grpc-keepalive-min-time=7s",
      "--grpc-keepalive-interval=8s", "--grpc-keepalive-timeout=9s", "--cert=c", "--key=k", "--cacert=ca",
      "--insecure-skip-tls-verify", "--cert-file=cf", "--key-file=kf", "--trusted-ca-file=tcf",
      "--listen-cipher-suites=x,y", "--auto-tls", "--client-crl-file=crl", "--self-signed-cert-validity=10",
      "--tls-min-version=TLS1.2", "--tls-max-version=TLS1.3", "--experimental-serializable-ordering",
      "--experimental-leasing-prefix=lp", "--experimental-enable-grpc-logging", "--debug",
      "--max-concurrent-streams=11", "--threads=12", "--pin-threads", "--io-backend=epoll",
      "--log-format=console", "--log-level=warn", "--drain-timeout=13s", "--dns-servers=9.9.9.9",
      "--upstream-timeout=14s", "--balance=weighted", "--endpoint-weights=15", "--health-interval=16s",
      "--health-timeout=17s", "--max-connections=18", "--max-connections-per-source=19", "--namespace-strict",
      "--cache=watch", "--cache-bytes=20000000", "--cache-max-staleness=21s", "--consistent-cache",
      "--bypass=b1,b2", "--bypass=b3", "--watch-cover=w1,w2", "--watch-cover=w3", "--watch-cover-from=22",
    ]
    var options = GRPCProxyOptions()
    let explicit = try GRPCProxyOptions.flags.parse(arguments, into: &options).explicit
    #expect(explicit == Set(GRPCProxyOptions.flags.groups.flatMap(\.flags).map(\.name)))
    #expect(explicit.count == GRPCProxyOptions.flags.groups.flatMap(\.flags).count)
    #expect(options == Self.filled)
    #expect(options.firstProblem() == nil)
  }

  private static let filled: GRPCProxyOptions = {
    var options = GRPCProxyOptions()
    options.listenAddresses = ["l:1"]
    options.cacheBytes = 20_000_000
    options.cacheMaxStaleness = .seconds(21)
    options.consistentCache = true
    options.bypassPrefixes = ["b1", "b2", "b3"]
    options.coverPrefixes = ["w1", "w2", "w3"]
    options.coverFrom = 22
    options.metricsAddress = "http://m:1"
    options.endpoints = ["e:1"]
    options.autoSyncInterval = .seconds(1)
    options.discoveryDomain = "d"
    options.discoveryServiceName = "n"
    options.insecureDiscovery = true
    options.dialKeepaliveTime = .seconds(2)
    options.dialKeepaliveTimeout = .seconds(3)
    options.permitWithoutStream = true
    options.advertiseURL = "a"
    options.resolverPrefix = "p"
    options.resolverTTL = 4
    options.namespace = "s"
    options.pprof = true
    options.dataDirectory = "dir"
    options.maxSendBytes = 5
    options.maxReceiveBytes = 6
    options.keepaliveMinTime = .seconds(7)
    options.keepaliveInterval = .seconds(8)
    options.keepaliveTimeout = .seconds(9)
    options.certificateFile = "c"
    options.keyFile = "k"
    options.caFile = "ca"
    options.skipsVerification = true
    options.listenCertificateFile = "cf"
    options.listenKeyFile = "kf"
    options.listenTrustedCAFile = "tcf"
    options.listenCipherSuites = ["x", "y"]
    options.autoTLS = true
    options.listenCRLFile = "crl"
    options.selfSignedYears = 10
    options.tlsMinVersion = "TLS1.2"
    options.tlsMaxVersion = "TLS1.3"
    options.serializableOrdering = true
    options.leasingPrefix = "lp"
    options.logsCalls = true
    options.debug = true
    options.maxConcurrentStreams = 11
    options.threads = 12
    options.pinThreads = true
    options.ioBackend = .epoll
    options.logFormat = .console
    options.logLevel = .warn
    options.drainTimeout = .seconds(13)
    options.dnsServers = ["9.9.9.9"]
    options.upstreamTimeout = .seconds(14)
    options.balance = .weighted
    options.endpointWeights = [15]
    options.healthInterval = .seconds(16)
    options.healthTimeout = .seconds(17)
    options.maxConnections = 18
    options.maxConnectionsPerSource = 19
    options.namespaceIsStrict = true
    return options
  }()

  @Test func etcdsDefaults() {
    let usage = GRPCProxyOptions.flags.usage
    for (name, value) in [
      ("listen-addr strings", "[127.0.0.1:23790]"), ("endpoints strings", "[127.0.0.1:2379]"),
      ("advertise-client-url string", "\"127.0.0.1:23790\""), ("data-dir string", "\"default.proxy\""),
      ("max-send-bytes int", "1572864"), ("max-recv-bytes int", "2147483647"),
      ("max-concurrent-streams uint32", "4294967295"), ("grpc-keepalive-min-time duration", "5s"),
      ("grpc-keepalive-interval duration", "2h0m0s"), ("grpc-keepalive-timeout duration", "20s"),
      ("dial-keepalive-timeout duration", "20s"), ("self-signed-cert-validity uint", "1"),
      ("tls-min-version string", "\"TLS1.2\""),
    ] {
      let line = usage.split(separator: "\n").first { $0.contains(" --\(name) ") }
      #expect(line?.hasSuffix(" (default \(value))") == true, "\(name)")
    }
  }

  // MARK: etcd's checks, in etcd's order

  @Test func registration() {
    #expect(problem { $0.resolverPrefix = "p" }?.text == "invalid resolver-ttl 0")
    #expect(problem { ($0.resolverPrefix, $0.resolverTTL) = ("p", -1) }?.text == "invalid resolver-ttl -1")
    #expect(problem { $0.resolverTTL = 1 }?.text == "invalid resolver-prefix \"\"")
    #expect(problem { $0.resolverTTL = -1 } == nil)
    #expect(problem { ($0.resolverPrefix, $0.resolverTTL) = ("p", 1) } == nil)
    #expect(
      problem { ($0.resolverPrefix, $0.resolverTTL, $0.advertiseURL) = ("p", 1, "") }?.text
        == "invalid advertise-client-url \"\"")
    #expect(problem { $0.advertiseURL = "" } == nil)
  }

  @Test func tlsVersions() {
    let words = "(must be one of: TLS1.2, TLS1.3)"
    #expect(
      problem { ($0.autoTLS, $0.selfSignedYears) = (true, 0) }?.text
        == "selfSignedCertValidity is invalid,it should be greater than 0")
    #expect(problem { $0.selfSignedYears = 0 } == nil)
    #expect(
      problem { ($0.autoTLS, $0.selfSignedYears) = (true, 1001) }?.text.contains("at most 1000") == true)
    #expect(
      problem { $0.tlsMinVersion = "TLS1.1" }?.text
        == "tls-min-version is invalid: unexpected TLS version \"TLS1.1\" \(words)")
    #expect(
      problem { $0.tlsMaxVersion = "1.3" }?.text
        == "tls-max-version is invalid: unexpected TLS version \"1.3\" \(words)")
    #expect(
      problem { ($0.tlsMinVersion, $0.tlsMaxVersion) = ("TLS1.3", "TLS1.2") }?.text
        == "min version (TLS1.3) is greater than max version (TLS1.2)")
    #expect(problem { ($0.tlsMinVersion, $0.tlsMaxVersion) = ("", "TLS1.2") } == nil)
    #expect(problem { ($0.tlsMinVersion, $0.tlsMaxVersion) = ("TLS1.2", "TLS1.2") } == nil)
    #expect(
      problem { ($0.tlsMinVersion, $0.listenCipherSuites) = ("TLS1.3", ["x"]) }?.text
        == "cipher suites cannot be configured when only TLS1.3 is enabled")
    #expect(problem { $0.listenCipherSuites = ["x"] } == nil)
  }

  @Test func theFirstFailingCheckWins() {
    var options = GRPCProxyOptions()
    options.healthTimeout = .zero
    options.metricsAddress = "x"
    options.maxReceiveBytes = 1
    options.certificateFile = "c"
    options.listenAddresses = ["bogus"]
    options.listenKeyFile = "k"
    options.tlsMaxVersion = "x"
    options.resolverTTL = 1
    var texts: [String] = []
    let repairs: [(inout GRPCProxyOptions) -> Void] = [
      { $0.resolverTTL = 0 }, { $0.tlsMaxVersion = "" }, { $0.listenKeyFile = "" },
      { $0.listenAddresses = ["a:1"] }, { $0.certificateFile = "" }, { $0.maxReceiveBytes = 0 },
      { $0.metricsAddress = "" }, { $0.healthTimeout = .seconds(1) },
    ]
    for repair in repairs {
      texts.append(options.firstProblem()?.text ?? "nothing")
      repair(&options)
    }
    #expect(options.firstProblem() == nil)
    #expect(
      texts == [
        "invalid resolver-prefix \"\"",
        "tls-max-version is invalid: unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
        "KeyFile and CertFile must both be present[key: k, cert: ]",
        "listen tcp: address bogus: missing port in address",
        "KeyFile and CertFile must both be present[key: , cert: c]",
        "gRPC message recv limit (1 bytes) must be greater than send limit (1572864 bytes)",
        "cannot parse \"x\"", "--health-timeout 0s must be more than 0s",
      ])
  }

  @Test func filesThatBelongTogether() {
    let missing = "cannot listen on TLS for 127.0.0.1:23790: KeyFile and CertFile are not presented"
    #expect(problem { $0.listenTrustedCAFile = "ca" }?.text == missing)
    // etcd makes a certificate only if none of the three is named.
    #expect(problem { ($0.listenTrustedCAFile, $0.autoTLS) = ("ca", true) }?.text == missing)
    #expect(problem { ($0.listenCertificateFile, $0.listenKeyFile) = ("c", "k") } == nil)
    #expect(problem { $0.caFile = "ca" } == nil)
    #expect(problem { ($0.certificateFile, $0.keyFile) = ("c", "k") } == nil)
    #expect(problem { $0.keyFile = "k" }?.text == "KeyFile and CertFile must both be present[key: k, cert: ]")
  }

  @Test func messageLimits() throws {
    let text = "gRPC message recv limit (50 bytes) must be greater than send limit (100 bytes)"
    #expect(problem { ($0.maxSendBytes, $0.maxReceiveBytes) = (100, 50) }?.text == text)
    #expect(problem { ($0.maxSendBytes, $0.maxReceiveBytes) = (100, 100) } == nil)
    #expect(problem { ($0.maxSendBytes, $0.maxReceiveBytes) = (100, 0) } == nil)
    #expect(problem { ($0.maxSendBytes, $0.maxReceiveBytes) = (0, 50) } == nil)
    #expect(try parsed().sendLimit == nil)
    #expect(try parsed("--max-send-bytes=1572864").sendLimit == 1_572_864)
    #expect(try parsed("--max-send-bytes=0").sendLimit == 2 << 20)
    #expect(try parsed("--max-send-bytes=-1").sendLimit == 2 << 20)
    #expect(try parsed("--max-recv-bytes=-1").receiveLimit == 2_147_483_647)
    #expect(try parsed("--max-recv-bytes=7").receiveLimit == 7)
  }

  // MARK: Addresses

  @Test(arguments: [":23790", "[::1]:0", "host:65535", "unix:/run/x.sock"])
  func listenAddresses(_ address: String) { #expect(problem { $0.listenAddresses = [address] } == nil) }

  @Test(arguments: [
    ("bogus", "listen tcp: address bogus: missing port in address"),
    ("a:b:c", "listen tcp: address a:b:c: too many colons in address"),
    ("[::1", "listen tcp: address [::1: missing ']' in address"),
    ("127.0.0.1:70000", "listen tcp: address 70000: invalid port"),
    ("127.0.0.1:-1", "listen tcp: address -1: invalid port"),
    ("127.0.0.1:x", "listen tcp: address tcp/x: unknown port"),
    ("127.0.0.1:", "listen tcp: address tcp/: unknown port"),
    ("unix:x", "listen unix: the path of a unix socket must begin with /"),
  ])
  func noListenAddresses(_ address: String, _ text: String) {
    #expect(problem { $0.listenAddresses = ["a:1", address] }?.text == text)
  }

  @Test func listsOfAddresses() {
    #expect(problem { $0.listenAddresses = [] }?.text.contains("--listen-addr is empty") == true)
    #expect(problem { $0.listenAddresses = ["a:1", "a:1"] }?.text == "--listen-addr names a:1 twice")
    #expect(problem { $0.endpoints = [] }?.text == "etcdclient: no available endpoints")
    #expect(problem { ($0.endpoints, $0.discoveryDomain) = ([], "d") } == nil)
    #expect(problem { $0.endpoints = ["a:1", "b"] }?.text == "error parsing endpoint \"b\"")
    #expect(problem { $0.endpoints = [""] }?.text == "error parsing endpoint \"\"")
    #expect(
      problem { $0.endpoints = ["a:1", "http://a:1", "https://a:1", "unix:/a", "unixs:///a"] } == nil)
  }

  @Test(arguments: [
    ("http://127.0.0.1:9379", "127.0.0.1:9379", false), ("https://h:1/metrics", "h:1", true),
    ("HTTPS://h:1", "h:1", true), ("http://[::1]:0", "[::1]:0", false), ("http://:9379", ":9379", false),
    ("unix:///run/m.sock", "unix:/run/m.sock", false), ("unixs://m.sock", "unix:m.sock", true),
    ("tcp://h:1", "h:1", false),
  ])
  func metricsURLs(_ text: String, _ address: String, _ isTLS: Bool) throws {
    let url = try MetricsURL(text)
    #expect(url.listenAddress == address)
    #expect(url.isTLS == isTLS)
    let name = address == "unix:m.sock" ? "m.sock" : address
    let missing = "cannot listen on TLS for \(name): KeyFile and CertFile are not presented"
    #expect(problem { $0.metricsAddress = text }?.text == (isTLS ? missing : nil))
    #expect(problem { ($0.metricsAddress, $0.autoTLS) = (text, true) } == nil)
  }

  @Test(arguments: [
    ("127.0.0.1:9379", "cannot parse \"127.0.0.1:9379\""),
    ("localhost:9379", "cannot parse \"localhost:9379\""),
    ("x", "cannot parse \"x\""), (":9", "cannot parse \":9\""), ("%zz", "cannot parse \"%zz\""),
    ("http:///x", "cannot parse \"http:///x\""), ("http://h:x", "cannot parse \"http://h:x\""),
    ("http://h:", "cannot parse \"http://h:\""), ("http://[::1", "cannot parse \"http://[::1\""),
    ("unix://", "cannot parse \"unix://\""), ("unix:/run/m", "cannot parse \"unix:/run/m\""),
    ("http://h", "listen tcp: address h: missing port in address"),
    ("http://h:70000", "listen tcp: address 70000: invalid port"),
  ])
  func noMetricsURLs(_ text: String, _ reason: String) {
    #expect(problem { $0.metricsAddress = text }?.text == reason)
  }

  // MARK: Our own checks

  @Test func ourOwnChecks() {
    #expect(problem { $0.upstreamTimeout = .zero }?.text == "--upstream-timeout 0s must be more than 0s")
    #expect(problem { $0.autoSyncInterval = .seconds(-1) }?.text.hasSuffix("must not be negative") == true)
    #expect(problem { $0.namespaceIsStrict = true }?.text == "--namespace-strict needs --namespace")
    #expect(problem { $0.namespace = "a\u{FFFD}" }?.text == "--namespace is not valid UTF-8")
    #expect(problem { $0.balance = .weighted }?.text.contains("needs --endpoint-weights") == true)
    #expect(problem { ($0.balance, $0.discoveryDomain) = (.weighted, "d") } == nil)
    #expect(problem { $0.endpointWeights = [1] }?.text.contains("without --balance weighted") == true)
    #expect(
      problem { ($0.balance, $0.endpointWeights) = (.weighted, [1, 2]) }?.text.contains("2 entries") == true)
    #expect(problem { $0.cacheBytes = 5 }?.text == "--cache-bytes 5 must be 1048576 or more")
    #expect(problem { ($0.cacheBytes, $0.cache) = (5, .off) } == nil)
    #expect(problem { $0.cacheMaxStaleness = .zero } == nil)
    #expect(problem { $0.cacheMaxStaleness = .seconds(-1) }?.text.hasSuffix("must not be negative") == true)
    #expect(
      problem { ($0.consistentCache, $0.cache) = (true, .etcd) }?.text
        == "--consistent-cache needs --cache watch")
    #expect(problem { $0.bypassPrefixes = ["a", ""] }?.text.contains("--bypass must not be empty") == true)
    #expect(problem { $0.coverPrefixes = ["a", ""] }?.text == "--watch-cover must not be empty")
    #expect(problem { $0.coverFrom = 1 }?.text == "--watch-cover-from 1 must be 0, or 2 or more")
    #expect(problem { $0.coverFrom = 0 } == nil)
    #expect(problem { $0.threads = -1 }?.text == "--threads -1 must be between 0 and 1024")
  }

  // MARK: What values mean

  @Test func durationsThatMeanSomethingElse() throws {
    let usual = try parsed()
    #expect(usual.leastClientPingInterval == .seconds(5))
    #expect(usual.clientPingInterval == .minutes(120))
    #expect(usual.clientPingTimeout == .seconds(20))
    #expect(usual.upstreamPingInterval == nil)
    #expect(usual.upstreamPingTimeout == .seconds(20))
    #expect(usual.effectiveAutoSyncInterval == nil)
    let zero = try parsed(
      "--grpc-keepalive-min-time=0", "--grpc-keepalive-interval=0", "--grpc-keepalive-timeout=0",
      "--dial-keepalive-timeout=0", "--dial-keepalive-time=-1s")
    #expect(zero.leastClientPingInterval == .minutes(5))
    #expect(zero.clientPingInterval == .minutes(120))
    #expect(zero.clientPingTimeout == .seconds(20))
    #expect(zero.upstreamPingInterval == nil)
    #expect(zero.upstreamPingTimeout == .seconds(20))
    let small = try parsed(
      "--grpc-keepalive-min-time=1ms", "--grpc-keepalive-interval=1ms", "--grpc-keepalive-timeout=1ms",
      "--dial-keepalive-time=1s", "--dial-keepalive-timeout=1s", "--endpoints-auto-sync-interval=1ns")
    #expect(small.leastClientPingInterval == .milliseconds(1))
    #expect(small.clientPingInterval == .seconds(1))
    #expect(small.clientPingTimeout == .milliseconds(1))
    #expect(small.upstreamPingInterval == .seconds(10))
    #expect(small.upstreamPingTimeout == .seconds(1))
    #expect(small.effectiveAutoSyncInterval == .milliseconds(100))
  }

  @Test func switches() throws {
    #expect(try parsed("--debug", "--log-level=error").effectiveLogLevel == .debug)
    #expect(try parsed("--log-level=error").effectiveLogLevel == .error)
    #expect(try parsed("--tls-min-version=").leastTLSVersion == nil)
    #expect(try parsed().leastTLSVersion == .v12)
    #expect(try parsed("--tls-max-version=TLS1.3").greatestTLSVersion == .v13)
    #expect(try !parsed().listensWithTLS && !parsed().configuresUpstreamTLS && !parsed().registers)
    #expect(try parsed("--auto-tls").listensWithTLS && parsed("--cert-file=c").listensWithTLS)
    for flag in ["--cert=c", "--key=k", "--cacert=a", "--insecure-skip-tls-verify"] {
      #expect(try parsed(flag).configuresUpstreamTLS)
    }
  }

  @Test func warnings() throws {
    #expect(try parsed().startWarnings == [])
    for (flag, beginning) in [
      ("--insecure-skip-tls-verify", "--insecure-skip-tls-verify was given, this grpc proxy process skips"),
      ("--experimental-leasing-prefix=x", "--experimental-leasing-prefix has no effect"),
      ("--listen-addr=127.0.0.1:1", "--advertise-client-url was not given"),
      ("--listen-addr=10.0.0.1:23790", "--advertise-client-url was not given"),
    ] {
      let warnings = try parsed(flag).startWarnings
      #expect(warnings.count == 1 && warnings.first?.hasPrefix(beginning) == true, "\(flag)")
    }
    for flag in ["--listen-addr=:23790", "--listen-addr=unix:/a,[::]:23790", "--listen-addr=0.0.0.0:23790"] {
      #expect(try parsed(flag).startWarnings == [])
    }
    #expect(try parsed("--listen-addr=a:1", "--advertise-client-url=127.0.0.1:23790").startWarnings == [])
  }
}
