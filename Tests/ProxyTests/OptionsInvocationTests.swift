import Testing

@testable import Proxy

@Suite struct OptionsInvocationTests {
  private func run(_ arguments: String...) -> Invocation { Invocation(arguments: ["etcd"] + arguments) }

  private func help(_ text: String) -> Invocation { .exit(stdout: text, stderr: "", status: 0) }

  @Test func startsWithDefaults() { #expect(run("gateway", "start") == .startGateway(GatewayOptions())) }

  @Test func flagsMayStandBeforeTheWord() {
    var expected = GatewayOptions()
    expected.endpoints = ["a:1"]
    expected.insecureDiscovery = true
    expected.explicitFlags = ["endpoints", "insecure-discovery"]
    #expect(expected.endpointsAreExplicit)
    #expect(run("gateway", "--endpoints=a:1", "--insecure-discovery", "start") == .startGateway(expected))
    #expect(run("gateway", "--endpoints", "a:1", "start", "--insecure-discovery") == .startGateway(expected))
    // As etcd reads it: the word after an unknown flag is its value.
    #expect(
      run("gateway", "--insecure-discovery", "bogus", "start", "--endpoints=a:1") == .startGateway(expected))
  }

  @Test func helpBeforeTheWord() {
    #expect(run("gateway", "-h", "start") == help(HelpText.start("gateway start")))
    #expect(run("gateway", "--help", "bogus", "start") == help(HelpText.start("gateway start")))
    #expect(run("gateway", "--help=false", "start") == .startGateway(GatewayOptions()))
  }

  @Test func extraWordsAreIgnored() {
    #expect(run("gateway", "start", "x", "--", "--y") == .startGateway(GatewayOptions()))
    #expect(run("gateway", "start", "--help=false") == .startGateway(GatewayOptions()))
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
    let text = "Error: unknown flag: --x\n" + HelpText.groupUsage("gateway") + "\nunknown flag: --x"
    #expect(run("gateway", "--x", "start") == .exit(stdout: "", stderr: text, status: 1))
    #expect(run("gateway", "bogus", "--x") == .exit(stdout: "", stderr: text, status: 1))
  }

  @Test func badFlagOfStart() {
    let text = "Error: unknown flag: --x\n" + HelpText.startUsage("gateway start") + "\nunknown flag: --x"
    #expect(run("gateway", "start", "--x") == .exit(stdout: "", stderr: text, status: 1))
    #expect(text.contains("Flags of etcd gateway:\n") && text.contains("\n\nFlags of Ringway:\n"))
  }

  @Test func helpOfStart() {
    let text = HelpText.start("gateway start")
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
    for words in [[], ["gateway"], ["gatway", "start"], ["gateway", "stat"]] {
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
    #expect(run("check", "--help") == help(HelpText.start("check gateway start")))
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

  @Test func otherJobsAreRefusedClearly() {
    guard case .exit("", let text, 1) = run("grpc-proxy", "start") else {
      Issue.record("grpc-proxy must fail")
      return
    }
    #expect(text.hasPrefix("Error: ") && text.contains("grpc-proxy"))
  }
}
