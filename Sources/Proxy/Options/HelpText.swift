/// The texts of `--help`, laid out as cobra does. `program` is what comes before a command's own word:
/// `ringway`, `ringway check`, or `etcd` if the program was called so, so that examples can be copied.
enum HelpText {
  static let version = "ringway \(Version.text)\n"

  static let root = """
    Ringway stands between clients and etcd: what 'etcd gateway' and 'etcd grpc-proxy' do, with health checks,
    metrics and draining.


    """ + rootUsage

  static let rootUsage = """
    Usage:
      ringway [command]

    Available Commands:
      check       check the flags of a command without starting it
      gateway     gateway related command
      grpc-proxy  grpc-proxy related command
      help        help about a command
      version     print the version

    Flags:
      -h, --help      help for ringway
          --version   print the version

    Use "ringway [command] --help" for more information about a command.

    """

  static let check = """
    check the flags of a command without starting it

    Usage:
      ringway check gateway start [flags]
      ringway check grpc-proxy start [flags]

    Prints that the command line is valid and exits with 0, or says what is wrong with it and exits with 1.

    """

  /// Help of a command that only has the sub-command `start`.
  static func group<Options: CommandOptions>(_: Options.Type, _ program: String) -> String {
    "\(Options.word) related command\n\n" + groupUsage(Options.self, program)
  }

  static func groupUsage<Options: CommandOptions>(_: Options.Type, _ program: String) -> String {
    """
    Usage:
      \(program) \(Options.word) [command]

    Available Commands:
      start       \(Options.summary)

    Flags:
      -h, --help   help for \(Options.word)

    Use "\(program) \(Options.word) [command] --help" for more information about a command.

    """
  }

  static func start<Options: CommandOptions>(_: Options.Type, _ program: String) -> String {
    "\(Options.summary)\n\n" + startUsage(Options.self, program)
  }

  static func startUsage<Options: CommandOptions>(_: Options.Type, _ program: String) -> String {
    let command = "  \(program) \(Options.word) start "
    let examples = Options.examples.map { command + $0 + "\n" }.joined()
    return "Usage:\n\(command)[flags]\n\nExamples:\n\(examples)\n" + Options.flags.usage
  }
}
