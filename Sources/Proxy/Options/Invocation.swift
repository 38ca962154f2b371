/// What a command line asks for. Nothing has happened yet: printing and starting are up to the caller.
enum Invocation: Equatable, Sendable {
  /// Print the texts as they are (they bring their own line ends) and exit with the status.
  case exit(stdout: String, stderr: String, status: Int32)
  /// Run the gateway; the options have been validated.
  case gateway(GatewayOptions)
  /// Run the gRPC proxy; the options have been validated.
  case grpcProxy(GRPCProxyOptions)
  /// Only say whether the gateway would start; the options have been validated.
  case checkGateway(GatewayOptions)
  /// Only say whether the gRPC proxy would start; the options have been validated.
  case checkGRPCProxy(GRPCProxyOptions)

  /// Reads the command line. `arguments` begins with the name of the program. Words, streams and statuses are
  /// those of `etcd gateway` and `etcd grpc-proxy` (cobra, pflag), which is all there is under the name `etcd`.
  init(arguments: [String]) {
    let rest = Array(arguments.dropFirst())
    if arguments.first.map(Invocation.isNamedEtcd) == true {
      self = Invocation.command(rest, program: "etcd") ?? Invocation.notEtcd
    } else {
      self = Invocation.command(rest, program: "ringway") ?? Invocation.own(rest)
    }
  }

  /// Scripts, unit files and test suites call `etcd` by whatever path it has.
  private static func isNamedEtcd(_ program: String) -> Bool {
    program.utf8.split(separator: UInt8(ascii: "/")).last?.elementsEqual("etcd".utf8) == true
  }

  /// One of etcd's commands, if the first word is its name. As with etcd it must be the first.
  private static func command(_ arguments: [String], program: String) -> Invocation? {
    let words = Array(arguments.dropFirst())
    switch arguments.first {
    case GatewayOptions.word: return start(words, program, Invocation.gateway)
    case GRPCProxyOptions.word: return start(words, program, Invocation.grpcProxy)
    default: return nil
    }
  }

  /// Whatever else etcd does, a member above all, must not seem to have been started.
  private static let notEtcd = fail(
    """
    Error: this 'etcd' is Ringway \(Version.text), which has no etcd server in it: \
    it only does 'etcd gateway' and 'etcd grpc-proxy'
    For a server, or for etcd's version and help, call etcd itself by its path.
    For Ringway's help, call it by its own name: 'ringway --help'.

    """)

  private static func print(_ text: String) -> Invocation { .exit(stdout: text, stderr: "", status: 0) }

  private static func fail(_ text: String) -> Invocation { .exit(stdout: "", stderr: text, status: 1) }

  /// cobra prints error and usage, then etcd prints the error once more, without a line end.
  private static func badFlag(_ error: OptionError, usage: String) -> Invocation {
    fail("Error: \(error.text)\n\(usage)\n\(error.text)")
  }
}

// MARK: - The commands that etcd has too

extension Invocation {
  private static func start<Options: CommandOptions>(
    _ arguments: [String], _ program: String, _ run: (Options) -> Invocation
  ) -> Invocation {
    guard let flags = Subcommand.split(arguments, word: "start", switches: Options.flags.switches) else {
      return group(Options.self, arguments, program)
    }
    var options = Options()
    do throws(OptionError) {
      let parsed = try Options.flags.parse(flags, into: &options)
      if parsed.wantsHelp { return .print(HelpText.start(Options.self, program)) }
      options.common.explicitFlags = parsed.explicit
    } catch {
      return badFlag(error, usage: HelpText.startUsage(Options.self, program))
    }
    if let problem = options.firstProblem() {
      return fail(problem.report("\(program) \(Options.word) start"))
    }
    return run(options)
  }

  /// A command that only has sub-commands: its help, whatever the words, unless there is a bad flag among them.
  private static func group<Options: CommandOptions>(
    _: Options.Type, _ arguments: [String], _ program: String
  ) -> Invocation {
    var options = NoOptions()
    do throws(OptionError) {
      _ = try FlagSet<NoOptions>(command: Options.word).parse(arguments, into: &options)
      return .print(HelpText.group(Options.self, program))
    } catch {
      return badFlag(error, usage: HelpText.groupUsage(Options.self, program))
    }
  }
}

// MARK: - Ringway's own words

extension Invocation {
  /// Flags of the program itself.
  private struct RootOptions: FlagOptions {
    var version = false
  }

  private static func own(_ arguments: [String]) -> Invocation {
    guard let word = arguments.first else { return .print(HelpText.root) }
    let following = Array(arguments.dropFirst())
    switch word {
    case "check": return check(following)
    case "version": return .print(HelpText.version)
    case "help": return help(following)
    case _ where word.utf8.first == Ascii.minus: return root(arguments)
    default: return unknown(word)
    }
  }

  private static func unknown(_ word: String) -> Invocation {
    fail("Error: unknown command \(GoText.quoted(word)) for \"ringway\"\nRun 'ringway --help' for usage.\n")
  }

  private static func root(_ arguments: [String]) -> Invocation {
    let flag = Flag<RootOptions>("version", \.version, "print the version")
    let flags = FlagSet(command: "ringway", groups: [FlagGroup("Flags", [flag])])
    var options = RootOptions()
    do throws(OptionError) {
      let parsed = try flags.parse(arguments, into: &options)
      return .print(options.version && !parsed.wantsHelp ? HelpText.version : HelpText.root)
    } catch {
      return badFlag(error, usage: HelpText.rootUsage)
    }
  }

  private static func help(_ words: [String]) -> Invocation {
    switch words.first {
    case nil: return .print(HelpText.root)
    case "check": return .print(HelpText.check)
    case GatewayOptions.word: return help(GatewayOptions.self, words)
    case GRPCProxyOptions.word: return help(GRPCProxyOptions.self, words)
    case let word?: return unknown(word)
    }
  }

  private static func help<Options: CommandOptions>(_: Options.Type, _ words: [String]) -> Invocation {
    .print(
      words.dropFirst().first == "start"
        ? HelpText.start(Options.self, "ringway") : HelpText.group(Options.self, "ringway"))
  }

  private static func check(_ arguments: [String]) -> Invocation {
    switch arguments.first {
    case GatewayOptions.word: check(arguments, Invocation.checkGateway)
    case GRPCProxyOptions.word: check(arguments, Invocation.checkGRPCProxy)
    default: nothingToCheck(arguments, "gateway")
    }
  }

  private static func check<Options: CommandOptions>(
    _ arguments: [String], _ run: (Options) -> Invocation
  ) -> Invocation {
    let words = Array(arguments.dropFirst())
    guard Subcommand.split(words, word: "start", switches: Options.flags.switches) != nil else {
      return nothingToCheck(arguments, Options.word)
    }
    return start(words, "ringway check", run)
  }

  /// A check of nothing must not pass for a check: unlike `gateway`, an incomplete `check` is an error.
  private static func nothingToCheck(_ arguments: [String], _ word: String) -> Invocation {
    if arguments.contains("-h") || arguments.contains("--help") { return .print(HelpText.check) }
    return fail("Error: nothing to check; write 'ringway check \(word) start' and the flags to check\n")
  }
}
