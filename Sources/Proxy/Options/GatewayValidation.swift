internal import Glibc

extension GatewayOptions {
  /// The first thing wrong with the options taken together, as one sentence, or nil. Looks at values only: names are
  /// not resolved, files not opened, and what an endpoint may look like is judged when endpoints are set up.
  public func firstProblem() -> String? {
    addressProblem() ?? weightProblem() ?? countProblem() ?? durationProblem()
  }

  private func addressProblem() -> String? {
    if listenAddresses.isEmpty { return "--listen-addr is empty: there is nowhere to accept clients" }
    for (index, address) in listenAddresses.enumerated() {
      if let fault = AddressSyntax.listenFault(address) {
        return "failed to validate listen address: \(address) (\(fault))"
      }
      if listenAddresses[..<index].contains(address) { return "--listen-addr names \(address) twice" }
    }
    if endpoints.isEmpty, discoveryDomain.isEmpty {
      return "no endpoints found: --endpoints is empty and --discovery-srv is not set"
    }
    if endpoints.contains("") { return "error parsing endpoint \"\": --endpoints has an empty entry" }
    if !metricsAddress.isEmpty, let fault = AddressSyntax.metricsFault(metricsAddress) {
      return "--metrics-addr \(metricsAddress) cannot be used: \(fault)"
    }
    for server in dnsServers where !AddressSyntax.isServer(server) {
      return "--dns-servers entry \(GoText.quoted(server)) is neither an IP address nor host:port"
    }
    return nil
  }

  private func weightProblem() -> String? {
    guard !endpointWeights.isEmpty else { return nil }
    if endpointWeights.count != endpoints.count {
      return
        "--endpoint-weights has \(endpointWeights.count) entries but --endpoints has \(endpoints.count): "
        + "give one weight for each endpoint, in the same order"
    }
    for weight in endpointWeights where !(1...65535).contains(weight) {
      return "--endpoint-weights entry \(weight) must be between 1 and 65535"
    }
    return nil
  }

  private func countProblem() -> String? {
    if !(0...1024).contains(threads) { return "--threads \(threads) must be between 0 and 1024" }
    let counts = [
      ("max-connections", maxConnections), ("max-connections-per-source", maxConnectionsPerSource),
    ]
    for (name, count) in counts where count < 0 { return "--\(name) \(count) must not be negative" }
    return nil
  }

  private func durationProblem() -> String? {
    let positive = [("connect-timeout", connectTimeout), ("health-timeout", healthTimeout)]
    for (name, length) in positive where length <= .zero { return "--\(name) \(length) must be more than 0s" }
    if healthInterval < GatewayOptions.smallestProbeInterval {
      return "--health-interval \(healthInterval) must be at least \(GatewayOptions.smallestProbeInterval)"
    }
    let notNegative = [
      ("race-delay", raceDelay), ("idle-timeout", idleTimeout), ("tcp-keepalive", tcpKeepalive),
      ("tcp-user-timeout", tcpUserTimeout), ("drain-timeout", drainTimeout),
    ]
    for (name, length) in notNegative where length < .zero {
      return "--\(name) \(length) must not be negative"
    }
    return kernelProblem()
  }

  /// The kernel counts keepalive in seconds up to 32767 and the user timeout in milliseconds of 31 bits (tcp(7)).
  private func kernelProblem() -> String? {
    if tcpKeepalive != .zero, tcpKeepalive < .seconds(1) || tcpKeepalive > .seconds(32767) {
      return "--tcp-keepalive \(tcpKeepalive) must be 0 or between 1s and \(GoDuration.seconds(32767))"
    }
    let longest = GoDuration.milliseconds(Int64(Int32.max))
    if tcpUserTimeout != .zero, tcpUserTimeout < .milliseconds(1) || tcpUserTimeout > longest {
      return "--tcp-user-timeout \(tcpUserTimeout) must be 0 or between 1ms and \(longest)"
    }
    return nil
  }
}

/// What the addresses on the command line may look like.
enum AddressSyntax {
  private static let listenForm = "want host:port or unix:/path"

  /// What is wrong with an address to accept clients on, or nil.
  static func listenFault(_ address: String) -> String? {
    if let path = rest(of: address, after: "unix:") { return pathFault(path) }
    guard let (_, port) = hostAndPort(address) else { return listenForm }
    return isPort(port) ? nil : "the port must be a number up to 65535"
  }

  /// What is wrong with an address to serve metrics on, or nil.
  static func metricsFault(_ address: String) -> String? {
    if let path = rest(of: address, after: "unix://") { return pathFault(path) }
    if address.utf8.starts(with: "https://".utf8) { return "metrics are served over plain http only" }
    var authority = Substring(rest(of: address, after: "http://") ?? address)
    if authority.utf8.last == UInt8(ascii: "/") { authority = authority.dropLast() }
    guard let (_, port) = hostAndPort(String(authority)) else {
      return "want http://host:port, host:port or unix:///path"
    }
    return isPort(port) ? nil : "the port must be a number up to 65535"
  }

  /// Whether `server` is an IP address (port 53 then) or has a host and a port.
  static func isServer(_ server: String) -> Bool {
    if isAddress(server) { return true }
    guard let (host, port) = hostAndPort(server) else { return false }
    return !host.isEmpty && isPort(port)
  }

  /// Splits at the last colon by the rules of Go's `net.SplitHostPort`: a host with colons stands in brackets.
  static func hostAndPort(_ text: String) -> (host: String, port: String)? {
    let bytes = text.utf8
    guard let colon = bytes.lastIndex(of: UInt8(ascii: ":")) else { return nil }
    var host = Substring(bytes[..<colon])
    let port = String(Substring(bytes[bytes.index(after: colon)...]))
    if host.utf8.first == UInt8(ascii: "[") {
      guard host.utf8.last == UInt8(ascii: "]") else { return nil }
      host = host.dropFirst().dropLast()
    } else if host.utf8.contains(UInt8(ascii: ":")) {
      return nil
    }
    let brackets = [UInt8(ascii: "["), UInt8(ascii: "]")]
    guard !host.utf8.contains(where: brackets.contains), !port.utf8.contains(where: brackets.contains) else {
      return nil
    }
    return (String(host), port)
  }

  private static func rest(of text: String, after prefix: String) -> String? {
    guard text.utf8.starts(with: prefix.utf8) else { return nil }
    return String(Substring(text.utf8.dropFirst(prefix.utf8.count)))
  }

  private static func isPort(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.allSatisfy(Ascii.isDecimal) && UInt16(text) != nil
  }

  /// The kernel keeps socket paths in 108 bytes with a zero at the end (unix(7)).
  private static func pathFault(_ path: String) -> String? {
    if path.utf8.first != UInt8(ascii: "/") { return "the path of a unix socket must begin with /" }
    return path.utf8.count > 107 ? "the path of a unix socket may have 107 bytes at most" : nil
  }

  private static func isAddress(_ text: String) -> Bool {
    var room = in6_addr()
    return unsafe inet_pton(AF_INET, text, &room) == 1 || inet_pton(AF_INET6, text, &room) == 1
  }
}
