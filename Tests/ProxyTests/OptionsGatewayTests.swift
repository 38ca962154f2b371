import Testing

@testable import Proxy

@Suite struct OptionsGatewayTests {
  private func problem(_ change: (inout GatewayOptions) -> Void) -> String? {
    var options = GatewayOptions()
    change(&options)
    return options.firstProblem()?.text
  }

  @Test func defaultsAreFine() { #expect(GatewayOptions().firstProblem() == nil) }

  @Test func everyFlagFillsItsOwnOption() throws {
    var options = GatewayOptions()
    let arguments = [
      "--discovery-srv=d", "--discovery-srv-name=n", "--endpoints=e:1", "--insecure-discovery",
      "--listen-addr=l:1",
      "--retry-delay=1s", "--trusted-ca-file=ca", "--threads=3", "--pin-threads", "--io-backend=io_uring",
      "--log-format=console", "--log-level=warn", "--access-log", "--metrics-addr=m:1", "--drain-timeout=2s",
      "--dns-servers=9.9.9.9", "--connect-timeout=3s", "--race-delay=4s", "--health-check=tls",
      "--health-interval=5s", "--health-timeout=6s", "--balance=least-connections", "--endpoint-weights=8",
      "--proxy-protocol-out=v2", "--max-connections=9", "--max-connections-per-source=10",
      "--idle-timeout=11s",
      "--tcp-keepalive=12s", "--tcp-user-timeout=13s", "--proxy-protocol-in=on",
    ]
    let parsed = try GatewayOptions.flags.parse(arguments, into: &options)
    #expect(parsed.explicit.count == GatewayOptions.flags.groups.flatMap(\.flags).count)
    var expected = GatewayOptions()
    expected.discoveryDomain = "d"
    expected.discoveryServiceName = "n"
    expected.endpoints = ["e:1"]
    expected.insecureDiscovery = true
    expected.listenAddresses = ["l:1"]
    expected.retryDelay = .seconds(1)
    expected.trustedCAFile = "ca"
    expected.threads = 3
    expected.pinThreads = true
    expected.ioBackend = .ioUring
    expected.logFormat = .console
    expected.logLevel = .warn
    expected.accessLog = true
    expected.metricsAddress = "m:1"
    expected.drainTimeout = .seconds(2)
    expected.dnsServers = ["9.9.9.9"]
    expected.connectTimeout = .seconds(3)
    expected.raceDelay = .seconds(4)
    expected.healthCheck = .tls
    expected.healthInterval = .seconds(5)
    expected.healthTimeout = .seconds(6)
    expected.balance = .leastConnections
    expected.endpointWeights = [8]
    expected.proxyProtocolOut = .v2
    expected.maxConnections = 9
    expected.maxConnectionsPerSource = 10
    expected.idleTimeout = .seconds(11)
    expected.tcpKeepalive = .seconds(12)
    expected.tcpUserTimeout = .seconds(13)
    expected.proxyProtocolIn = .on
    #expect(options == expected)
    #expect(options.firstProblem() == nil)
  }

  @Test func retryDelay() {
    var options = GatewayOptions()
    #expect(options.effectiveRetryDelay == .minutes(1))
    options.retryDelay = .zero
    #expect(options.effectiveRetryDelay == .minutes(5))
    options.retryDelay = .seconds(-1)
    #expect(options.effectiveRetryDelay == CommonOptions.smallestProbeInterval)
  }

  @Test func weights() {
    #expect(problem { $0.endpointWeights = [1, 2] }?.contains("has 2 entries but --endpoints has 1") == true)
    for weight in [0, -1, 65536] {
      #expect(problem { $0.endpointWeights = [weight] }?.contains("between 1 and 65535") == true)
    }
    #expect(problem { $0.endpointWeights = [65535] } == nil)
  }

  @Test func counts() {
    #expect(problem { $0.threads = -1 } != nil)
    #expect(problem { $0.threads = 1025 } == "--threads 1025 must be between 0 and 1024")
    #expect(problem { $0.threads = 1024 } == nil)
    #expect(problem { $0.maxConnections = -1 } == "--max-connections -1 must not be negative")
    #expect(problem { $0.maxConnectionsPerSource = -1 } != nil)
  }

  @Test func durations() {
    #expect(problem { $0.connectTimeout = .zero } == "--connect-timeout 0s must be more than 0s")
    #expect(problem { $0.healthTimeout = .zero } != nil)
    #expect(problem { $0.healthInterval = .milliseconds(9) } == "--health-interval 9ms must be at least 10ms")
    #expect(problem { $0.raceDelay = .seconds(-1) } == "--race-delay -1s must not be negative")
    #expect(problem { $0.idleTimeout = .seconds(-1) } != nil)
    #expect(problem { $0.drainTimeout = .seconds(-1) } != nil)
    #expect(problem { $0.tcpKeepalive = .milliseconds(999) } != nil)
    #expect(problem { $0.tcpKeepalive = .seconds(32768) } != nil)
    #expect(problem { $0.tcpUserTimeout = GoDuration(nanoseconds: 1) } != nil)
    #expect(problem { $0.tcpUserTimeout = .minutes(60 * 24 * 30) } != nil)
    #expect(problem { $0.retryDelay = .seconds(-1) } == nil)
    #expect(
      problem {
        $0.raceDelay = .zero
        $0.idleTimeout = .zero
        $0.tcpKeepalive = .zero
        $0.drainTimeout = .zero
      } == nil)
  }

  @Test(arguments: ["127.0.0.1:0", "[::1]:23790", ":23790", "localhost:65535", "unix:/run/x.sock"])
  func listenAddresses(_ address: String) { #expect(problem { $0.listenAddresses = [address] } == nil) }

  @Test(arguments: [
    "", "127.0.0.1", "::1:80", "[::1]", "[::1:80", "a:65536", "a:-1", "a:http", "a:", "unix:", "unix:x",
    "a[b:1",
  ])
  func noListenAddresses(_ address: String) {
    #expect(problem { $0.listenAddresses = [address] }?.contains("failed to validate listen address") == true)
  }

  @Test func addresses() {
    let long = "unix:/" + String(repeating: "x", count: 107)
    #expect(problem { $0.listenAddresses = [long] }?.contains("107 bytes") == true)
    #expect(problem { $0.listenAddresses = [] } != nil)
    #expect(problem { $0.listenAddresses = ["a:1", "a:1"] } == "--listen-addr names a:1 twice")
    #expect(problem { $0.endpoints = [] }?.contains("no endpoints found") == true)
    #expect(
      problem {
        $0.endpoints = []
        $0.discoveryDomain = "d"
      } == nil)
    #expect(problem { $0.endpoints = ["a:1", ""] }?.contains("error parsing endpoint \"\"") == true)
    for good in ["http://127.0.0.1:1", "http://a:1/", "a:1", "[::1]:1", "unix:///run/m"] {
      #expect(problem { $0.metricsAddress = good } == nil)
    }
    for bad in ["https://a:1", "http://a", "a", "unix://run", "http://a:1/metrics"] {
      #expect(problem { $0.metricsAddress = bad } != nil)
    }
    for good in ["1.1.1.1", "::1", "1.1.1.1:53", "[::1]:53", "ns:53"] {
      #expect(problem { $0.dnsServers = [good] } == nil)
    }
    for bad in ["", "ns", ":53", "1.1.1.1:x"] { #expect(problem { $0.dnsServers = [bad] } != nil) }
  }
}
