/// `ringway grpc-proxy start`.
enum GRPCProxyServer {
  /// Runs until a signal ends it.
  ///
  /// - Parameter arguments: the whole command line, for the log.
  /// - Returns: the exit status; what went wrong has then been said on stderr.
  static func run(_ options: GRPCProxyOptions, arguments: [String]) -> Int32 {
    StandardError.write("Error: ringway \(Version.text) has no grpc-proxy; run etcd grpc-proxy for that\n")
    return 1
  }
}
