internal import Reactor

/// A `--metrics-addr` of the gRPC proxy: `http://host:port`, `https://host:port`, `unix:///path` or
/// `unixs:///path`. As with etcd (grpc_proxy.go: mustMetricsListener) other schemes count as `http`, and what
/// follows the port is ignored. Refused are also texts that etcd takes for a URL without host, such as
/// `localhost:9090`: it then serves on a random port of all addresses.
struct MetricsURL: Equatable {
  /// What to listen on, in the form of a `--listen-addr`: `host:port` or `unix:path`.
  let listenAddress: String
  /// Whether it is served with the TLS of the client port.
  let isTLS: Bool

  init(_ text: String) throws(OptionProblem) {
    guard let (scheme, rest) = EndpointName.schemeAndRest(text), rest.utf8.starts(with: "//".utf8) else {
      throw Self.malformed(text)
    }
    isTLS = scheme == "https" || scheme == "unixs"
    if scheme == "unix" || scheme == "unixs" {
      let path = String(Substring(rest.utf8.dropFirst(2)))
      guard Address(unixPath: path) != nil else { throw Self.malformed(text) }
      listenAddress = "unix:" + path
      return
    }
    guard let authority = EndpointName.authority(of: rest) else { throw Self.malformed(text) }
    guard Self.isURL(authority) else { throw Self.malformed(text) }
    if let fault = AddressSyntax.goListenFault(authority) {
      throw OptionProblem(etcd: fault, advice: Self.advice)
    }
    listenAddress = authority
  }

  /// Go takes a URL apart without minding a missing port, which is then noticed when it listens.
  private static func isURL(_ authority: String) -> Bool {
    do throws(HostPort.Malformed) {
      let port = try HostPort(authority).port
      return !port.isEmpty && port.utf8.allSatisfy(Ascii.isDecimal)
    } catch {
      return error.reason == .missingPort
    }
  }

  private static let advice = "--metrics-addr is a URL, for example http://127.0.0.1:9379."

  private static func malformed(_ text: String) -> OptionProblem {
    OptionProblem(etcd: "cannot parse \(GoText.quoted(text))", advice: advice)
  }
}
