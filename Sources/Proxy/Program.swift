/// The command line's meaning, carried out.
public enum Program {
  /// Runs what the arguments ask for; returns the exit status. `arguments[0]` is the program's name.
  public static func run(_ arguments: [String]) -> Int32 {
    switch Invocation(arguments: arguments) {
    case .exit(let stdout, let stderr, let status):
      StandardError.write(stdout, to: 1)
      StandardError.write(stderr)
      return status
    case .startGateway(let options): return GatewayServer.run(options, arguments: arguments)
    case .checkGateway(let options): return check(options)
    }
  }

  private static func check(_ options: GatewayOptions) -> Int32 {
    do throws(StartFailure) {
      try GatewayServer.check(options)
      StandardError.write("The command line is valid.\n", to: 1)
      return 0
    } catch {
      StandardError.write(error.text + "\n")
      return 1
    }
  }
}
