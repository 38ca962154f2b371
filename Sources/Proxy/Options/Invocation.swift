/// What a command line asks for. Nothing has happened yet: printing and starting are up to the caller.
public enum Invocation: Equatable, Sendable {
  /// Print the texts as they are (they bring their own line ends) and exit with the status.
  case exit(stdout: String, stderr: String, status: Int32)
  /// Run the gateway; the options have been validated.
  case startGateway(GatewayOptions)
  /// Only say whether the gateway would start; the options have been validated.
  case checkGateway(GatewayOptions)

  /// Reads the command line. `arguments` begins with the name of the program, which does not matter: the same words
  /// work under the name `etcd`. Words, streams and statuses are those of `etcd gateway` (cobra, pflag).
  public init(arguments: [String]) {
    let rest = Array(arguments.dropFirst())
    guard let word = rest.first else {
      self = .print(HelpText.root)
      return
    }
    let following = Array(rest.dropFirst())
    switch word {
    case "gateway": self = Invocation.gateway(following, path: "gateway", run: Invocation.startGateway)
    case "check": self = Invocation.check(following)
    case "grpc-proxy": self = Invocation.grpcProxy
    case "version": self = .print(HelpText.version)
    case "help": self = Invocation.help(following)
    case _ where word.utf8.first == Ascii.minus: self = Invocation.root(rest)
    default: self = Invocation.unknown(word, under: "ringway")
    }
  }

  private static func print(_ text: String) -> Invocation { .exit(stdout: text, stderr: "", status: 0) }

  private static func fail(_ text: String) -> Invocation { .exit(stdout: "", stderr: text, status: 1) }

  /// cobra prints error and usage, then etcd prints the error once more, without a line end.
  private static func badFlag(_ error: OptionError, usage: String) -> Invocation {
    fail("Error: \(error.text)\n\(usage)\n\(error.text)")
  }

  private static func unknown(_ word: String, under command: String) -> Invocation {
    fail(
      "Error: unknown command \(GoText.quoted(word)) for \"\(command)\"\nRun 'ringway --help' for usage.\n")
  }

  private static var grpcProxy: Invocation {
    fail("Error: ringway \(Version.text) has no grpc-proxy; run etcd grpc-proxy for that\n")
  }
}

extension Invocation {
  /// Flags of the program itself.
  private struct RootOptions: FlagOptions {
    var version = false
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
    switch (words.first, words.dropFirst().first) {
    case (nil, _): return .print(HelpText.root)
    case ("check", _): return .print(HelpText.start("check gateway start"))
    case ("gateway", "start"): return .print(HelpText.start("gateway start"))
    case ("gateway", _): return .print(HelpText.group("gateway"))
    case (let word?, _): return unknown(word, under: "ringway")
    }
  }

  /// A check of nothing must not pass for a check: unlike `gateway`, an incomplete `check` is an error.
  private static func check(_ arguments: [String]) -> Invocation {
    let words = Array(arguments.dropFirst())
    let switches = GatewayOptions.flags.switches
    if arguments.first == "gateway", Subcommand.split(words, word: "start", switches: switches) != nil {
      return gateway(words, path: "check gateway", run: Invocation.checkGateway)
    }
    if arguments.contains("-h") || arguments.contains("--help") {
      return .print(HelpText.start("check gateway start"))
    }
    return fail("Error: nothing to check; write 'ringway check gateway start' and the flags to check\n")
  }

  private static func gateway(
    _ arguments: [String], path: String, run: (GatewayOptions) -> Invocation
  ) -> Invocation {
    guard let flags = Subcommand.split(arguments, word: "start", switches: GatewayOptions.flags.switches)
    else {
      return group(arguments, path: path)
    }
    let path = path + " start"
    var options = GatewayOptions()
    do throws(OptionError) {
      let parsed = try GatewayOptions.flags.parse(flags, into: &options)
      if parsed.wantsHelp { return .print(HelpText.start(path)) }
      options.explicitFlags = parsed.explicit
    } catch {
      return badFlag(error, usage: HelpText.startUsage(path))
    }
    if let problem = options.firstProblem() {
      return fail("Error: \(problem)\nRun 'ringway \(path) --help' for the flags.\n")
    }
    return run(options)
  }

  /// A command that only has sub-commands: its help, whatever the words, unless there is a bad flag among them.
  private static func group(_ arguments: [String], path: String) -> Invocation {
    var options = NoOptions()
    do throws(OptionError) {
      _ = try FlagSet<NoOptions>(command: "gateway").parse(arguments, into: &options)
      return .print(HelpText.group(path))
    } catch {
      return badFlag(error, usage: HelpText.groupUsage(path))
    }
  }
}

/// Where a sub-command's word stands among flags.
enum Subcommand {
  /// The arguments without `word` if it is the first of them that is neither flag nor value of a flag, else nil.
  ///
  /// cobra looks for the word before it knows any flag, so that it takes what follows one for its value:
  /// `--insecure-discovery start` has no word. If there is none by that rule, the inner
  /// command's `switches` are taken into account as well, so that etcd's reading is kept and ours is added.
  static func split(_ arguments: [String], word: String, switches: Set<String>) -> [String]? {
    guard
      let place = place(arguments, word: word, switches: [])
        ?? place(arguments, word: word, switches: switches)
    else { return nil }
    return Array(arguments[..<place] + arguments[(place + 1)...])
  }

  private static func place(_ arguments: [String], word: String, switches: Set<String>) -> Int? {
    var skipsValue = false
    for (index, argument) in arguments.enumerated() {
      if skipsValue {
        skipsValue = false
        continue
      }
      let bytes = argument.utf8
      if argument == "--" { return nil }
      if bytes.first == Ascii.minus {
        let isLong = bytes.starts(with: "--".utf8)
        let name = isLong ? String(argument.dropFirst(2)) : argument == "-h" ? "help" : ""
        let isSwitch = switches.contains(name)
        skipsValue = !bytes.contains(Ascii.equals) && !isSwitch && (isLong || bytes.count == 2)
      } else if !bytes.isEmpty {
        return argument == word ? index : nil
      }
    }
    return nil
  }
}
