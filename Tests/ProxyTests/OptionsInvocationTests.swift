import Testing

@testable import Proxy

@Suite struct OptionsInvocationTests {
  private func run(_ arguments: String...) -> Invocation { Invocation(arguments: ["ringway"] + arguments) }

  private func help(_ text: String) -> Invocation { .exit(stdout: text, stderr: "", status: 0) }

  @Test func startsWithDefaults() { #expect(run("gateway", "start") == .gateway(GatewayOptions())) }

  @Test func flagsMayStandBeforeTheWord() {
    var expected = GatewayOptions()
    expected.endpoints = ["a:1"]
    expected.insecureDiscovery = true
    expected.explicitFlags = ["endpoints", "insecure-discovery"]
    #expect(expected.endpointsAreExplicit)
    #expect(run("gateway", "--endpoints=a:1", "--insecure-discovery", "start") == .gateway(expected))
    #expect(run("gateway", "--endpoints", "a:1", "start", "--insecure-discovery") == .gateway(expected))
    // As etcd reads it: the word after an unknown flag is its value.
    #expect(
      run("gateway", "--insecure-discovery", "bogus", "start", "--endpoints=a:1") == .gateway(expected))
  }

  @Test func helpBeforeTheWord() {
    #expect(run("gateway", "-h", "start") == help(HelpText.start(GatewayOptions.self, "ringway")))
    #expect(
      run("gateway", "--help", "bogus", "start") == help(HelpText.start(GatewayOptions.self, "ringway")))
    #expect(run("gateway", "--help=false", "start") == .gateway(GatewayOptions()))
  }

  @Test func extraWordsAreIgnored() {
    #expect(run("gateway", "start", "x", "--", "--y") == .gateway(GatewayOptions()))
    #expect(run("gateway", "start", "--help=false") == .gateway(GatewayOptions()))
  }

  @Test func groupHelp() {
    let text = """
      gateway related command

      Usage:
        ringway gateway [command]

      Available Commands:
        start       start the gateway

      Flags:
        -h, --help   help for gateway

      Use "ringway gateway [command] --help" for more information about a command.

      """
    for words in [[], ["bogus"], ["help", "start"], ["bogus", "--help"], ["--", "start"], ["-h"]] {
      #expect(Invocation(arguments: ["ringway", "gateway"] + words) == help(text))
    }
    #expect(run("help", "gateway") == help(text))
  }

  @Test func badFlagOfTheGroup() {
    let text =
      "Error: unknown flag: --x\n" + HelpText.groupUsage(GatewayOptions.self, "ringway")
      + "\nunknown flag: --x"
    #expect(run("gateway", "--x", "start") == .exit(stdout: "", stderr: text, status: 1))
    #expect(run("gateway", "bogus", "--x") == .exit(stdout: "", stderr: text, status: 1))
  }

  @Test func badFlagOfStart() {
    let text =
      "Error: unknown flag: --x\n" + HelpText.startUsage(GatewayOptions.self, "ringway")
      + "\nunknown flag: --x"
    #expect(run("gateway", "start", "--x") == .exit(stdout: "", stderr: text, status: 1))
    #expect(text.contains("Flags of etcd gateway:\n") && text.contains("\n\nFlags of Ringway:\n"))
  }

  @Test func helpOfStart() {
    let text = HelpText.start(GatewayOptions.self, "ringway")
    #expect(text.contains("--retry-delay duration") && text.contains("(default 1m0s)"))
    #expect(text.contains("--endpoints strings") && text.contains("(default [127.0.0.1:2379])"))
    #expect(text.contains("  -h, --help                        help for start\n"))
    #expect(run("gateway", "start", "-h") == help(text))
    #expect(run("help", "gateway", "start") == help(text))
  }

  @Test func problemsStopTheStart() {
    let text = """
      Error: --threads 5000 must be between 0 and 1024
      Run 'ringway gateway start --help' for the flags.

      """
    #expect(run("gateway", "start", "--threads", "5000") == .exit(stdout: "", stderr: text, status: 1))
  }

  @Test func check() {
    #expect(run("check", "gateway", "start") == .checkGateway(GatewayOptions()))
    for words in [
      [], ["gateway"], ["gatway", "start"], ["gateway", "stat"], ["grpc-proxy"], ["grpc-proxy", "stat"],
    ] {
      guard case .exit("", let text, 1) = Invocation(arguments: ["ringway", "check"] + words) else {
        Issue.record("an incomplete check must fail: \(words)")
        continue
      }
      #expect(text.hasPrefix("Error: nothing to check"))
    }
    guard case .exit("", let text, 1) = run("check", "gateway", "start", "--threads=-1") else {
      Issue.record("a failing check must fail")
      return
    }
    #expect(text.hasPrefix("Error: --threads -1 must"))
    #expect(run("check", "--help") == help(HelpText.check))
  }

  @Test func root() {
    #expect(run() == help(HelpText.root))
    #expect(Invocation(arguments: []) == help(HelpText.root))
    #expect(run("help") == help(HelpText.root))
    #expect(run("--help") == help(HelpText.root))
    #expect(run("version") == help("ringway 0.1.0\n"))
    #expect(run("--version") == help("ringway 0.1.0\n"))
    let unknown = "Error: unknown command \"x\" for \"ringway\"\nRun 'ringway --help' for usage.\n"
    #expect(run("x") == .exit(stdout: "", stderr: unknown, status: 1))
    #expect(run("help", "x") == .exit(stdout: "", stderr: unknown, status: 1))
    let badFlag = "Error: unknown flag: --x\n" + HelpText.rootUsage + "\nunknown flag: --x"
    #expect(run("--x", "gateway") == .exit(stdout: "", stderr: badFlag, status: 1))
  }

  @Test func proxyStartsWithDefaults() {
    #expect(run("grpc-proxy", "start") == .grpcProxy(GRPCProxyOptions()))
    #expect(run("grpc-proxy", "start", "x", "--", "--y") == .grpcProxy(GRPCProxyOptions()))
    #expect(run("check", "grpc-proxy", "start") == .checkGRPCProxy(GRPCProxyOptions()))
  }

  @Test func flagsMayStandBeforeTheProxysWord() {
    var expected = GRPCProxyOptions()
    expected.endpoints = ["a:1"]
    expected.debug = true
    expected.explicitFlags = ["endpoints", "debug"]
    #expect(run("grpc-proxy", "--endpoints=a:1", "--debug", "start") == .grpcProxy(expected))
    #expect(run("grpc-proxy", "--endpoints", "a:1", "start", "--debug") == .grpcProxy(expected))
    #expect(run("check", "grpc-proxy", "--endpoints", "a:1", "start", "--debug") == .checkGRPCProxy(expected))
  }

  @Test func helpOfTheProxy() {
    let group = """
      grpc-proxy related command

      Usage:
        ringway grpc-proxy [command]

      Available Commands:
        start       start the grpc proxy

      Flags:
        -h, --help   help for grpc-proxy

      Use "ringway grpc-proxy [command] --help" for more information about a command.

      """
    for words in [[], ["bogus"], ["-h"], ["help", "start"]] {
      #expect(Invocation(arguments: ["ringway", "grpc-proxy"] + words) == help(group))
    }
    let start = HelpText.start(GRPCProxyOptions.self, "ringway")
    #expect(
      start.hasPrefix("start the grpc proxy\n\nUsage:\n  ringway grpc-proxy start [flags]\n\nExamples:\n"))
    #expect(start.contains("\n\nFlags of etcd grpc-proxy:\n") && start.contains("\n\nFlags of Ringway:\n"))
    #expect(run("grpc-proxy", "start", "-h") == help(start))
    #expect(run("grpc-proxy", "--help", "start") == help(start))
    #expect(run("help", "grpc-proxy") == help(group))
    #expect(run("help", "grpc-proxy", "start") == help(start))
    let usage = HelpText.startUsage(GRPCProxyOptions.self, "ringway")
    let badFlag = "Error: unknown flag: --x\n" + usage + "\nunknown flag: --x"
    #expect(run("grpc-proxy", "start", "--x") == .exit(stdout: "", stderr: badFlag, status: 1))
  }

  @Test func etcdsWordsStandAlone() {
    let text = """
      invalid resolver-ttl 0
      --resolver-prefix needs --resolver-ttl, in whole seconds, for example --resolver-ttl=60.

      """
    #expect(
      run("grpc-proxy", "start", "--resolver-prefix=p") == .exit(stdout: "", stderr: text, status: 1))
    #expect(
      run("check", "grpc-proxy", "start", "--resolver-prefix=p") == .exit(stdout: "", stderr: text, status: 1)
    )
    let ours = """
      Error: --namespace-strict needs --namespace
      Run 'ringway grpc-proxy start --help' for the flags.

      """
    #expect(run("grpc-proxy", "start", "--namespace-strict") == .exit(stdout: "", stderr: ours, status: 1))
  }

  @Test(arguments: ["etcd", "./etcd", "/usr/local/bin/etcd"]) func theNameEtcd(_ name: String) {
    let run = { (words: String...) in Invocation(arguments: [name] + words) }
    #expect(run("gateway", "start") == .gateway(GatewayOptions()))
    #expect(run("grpc-proxy", "start") == .grpcProxy(GRPCProxyOptions()))
    #expect(run("gateway") == help(HelpText.group(GatewayOptions.self, "etcd")))
    #expect(run("grpc-proxy", "start", "-h") == help(HelpText.start(GRPCProxyOptions.self, "etcd")))
    #expect(HelpText.start(GRPCProxyOptions.self, "etcd").contains("\n  etcd grpc-proxy start [flags]\n"))
    for words in [
      [], ["--version"], ["--help"], ["--name", "x"], ["--endpoints=a:1", "gateway"], ["version"], ["check"],
      ["help"],
    ] {
      guard case .exit("", let text, 1) = Invocation(arguments: [name] + words) else {
        Issue.record("no etcd must seem to have started: \(words)")
        continue
      }
      #expect(text.hasPrefix("Error: this 'etcd' is Ringway"))
    }
  }

  @Test(arguments: ["etcd2", "myetcd", "etcd/ringway", "Etcd", ""]) func otherNamesAreRingway(_ name: String)
  {
    #expect(Invocation(arguments: [name, "version"]) == help("ringway 0.1.0\n"))
  }
}
