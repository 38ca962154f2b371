internal import Reactor

/// Whether connections to etcd use TLS. As in etcd's client the first endpoint decides for all of them.
struct UpstreamSecurity: Hashable, Sendable {
  /// True for TLS, false for cleartext.
  let usesTLS: Bool
  /// What to tell the operator if endpoints ask for something else than they get.
  let warning: String?

  /// - Parameters:
  ///   - endpoints: as given, with or without scheme.
  ///   - configured: whether a flag about TLS towards etcd was given.
  init(endpoints: [String], configured: Bool) {
    let usesTLS = endpoints.first.flatMap(Self.demand) ?? configured
    let others = endpoints.filter { Self.demand(of: $0) == !usesTLS }
    self.usesTLS = usesTLS
    guard let first = endpoints.first, !others.isEmpty else {
      warning = nil
      return
    }
    let (used, instead) = usesTLS ? ("TLS", "cleartext") : ("cleartext", "TLS")
    let list = others.map(GoText.quoted).joined(separator: ", ")
    let reason =
      Self.demand(of: first) == nil
      ? "the first endpoint has no scheme, so that the TLS flags decide"
      : "the first endpoint, \(GoText.quoted(first)), decides"
    warning =
      "all endpoints are reached with \(used), although \(list) asks for \(instead): \(reason); "
      + "give all endpoints the same scheme"
  }

  /// True for TLS, false for cleartext, nil if the endpoint leaves it open.
  private static func demand(of endpoint: String) -> Bool? {
    guard let colon = endpoint.utf8.firstIndex(of: UInt8(ascii: ":")) else { return nil }
    let isURL = endpoint[colon...].utf8.starts(with: "://".utf8)
    switch endpoint[..<colon].lowercased() {
    case "http" where isURL: return false
    case "https" where isURL: return true
    // `unixs:2379` is a host with a port, as `EndpointName` has it.
    case "unixs": return isURL || !isPort(endpoint[colon...].dropFirst()) ? true : nil
    default: return nil
    }
  }
  private static func isPort(_ text: Substring) -> Bool {
    !text.isEmpty && HostPort(host: "", port: String(text)).portNumber != nil
  }
}
