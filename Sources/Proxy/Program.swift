/// The command line's meaning, carried out.
public enum Program {
  /// Runs what the arguments ask for; returns the exit status. `arguments[0]` is the program's name.
  public static func run(_ arguments: [String]) -> Int32 {
    switch Invocation(arguments: arguments) {
    case .exit(let stdout, let stderr, let status):
      StandardError.write(stdout, to: 1)
      StandardError.write(stderr)
      return status
    case .gateway(let options): return GatewayServer.run(options, arguments: arguments)
    case .grpcProxy(let options): return GRPCProxyServer.run(options, arguments: arguments)
    case .checkGateway(let options):
      return check { () throws(StartFailure) in try GatewayServer.check(options) }
    // Whatever can be told without looking names up or opening files was told when the options were read.
    case .checkGRPCProxy: return check {}
    }
  }

  private static func check(_ body: () throws(StartFailure) -> Void) -> Int32 {
    do throws(StartFailure) {
      try body()
      StandardError.write("The command line is valid.\n", to: 1)
      return 0
    } catch {
      StandardError.write(error.text + "\n")
      return 1
    }
  }
}
