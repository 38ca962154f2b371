/// The texts of `--help`, laid out as cobra does.
enum HelpText {
  static let version = "ringway \(Version.text)\n"

  static let root = """
    Ringway stands between clients and etcd: what 'etcd gateway' does, with health checks, metrics and draining.


    """ + rootUsage

  static let rootUsage = """
    Usage:
      ringway [command]

    Available Commands:
      check       check the flags of a command without starting it
      gateway     gateway related command
      help        help about a command
      version     print the version

    Flags:
      -h, --help      help for ringway
          --version   print the version

    Use "ringway [command] --help" for more information about a command.

    """

  /// Help of a command that only has the sub-command `start`.
  static func group(_ path: String) -> String { "gateway related command\n\n" + groupUsage(path) }

  static func groupUsage(_ path: String) -> String {
    """
    Usage:
      ringway \(path) [command]

    Available Commands:
      start       start the gateway

    Flags:
      -h, --help   help for gateway

    Use "ringway \(path) [command] --help" for more information about a command.

    """
  }

  static func start(_ path: String) -> String { "start the gateway\n\n" + startUsage(path) }

  static func startUsage(_ path: String) -> String {
    """
    Usage:
      ringway \(path) [flags]

    Examples:
      ringway \(path) --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
      ringway \(path) --listen-addr 0.0.0.0:2379 --discovery-srv example.com --metrics-addr 127.0.0.1:9379


    """ + GatewayOptions.flags.usage
  }
}
