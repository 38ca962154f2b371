extension CommonOptions {
  /// The shortest time between two probes of one endpoint; shorter ones would only load etcd.
  static let smallestProbeInterval = GoDuration.milliseconds(Limits.leastProbeMilliseconds)

  /// The first thing wrong with the options that both commands judge alike, or nil.
  func firstProblem() -> String? {
    weightProblem() ?? dnsProblem() ?? countProblem() ?? durationProblem()
  }

  /// The address that stands twice in `--listen-addr`, or the lack of any.
  func listenProblem() -> String? {
    if listenAddresses.isEmpty { return "--listen-addr is empty: there is nowhere to accept clients" }
    for (index, address) in listenAddresses.enumerated() where listenAddresses[..<index].contains(address) {
      return "--listen-addr names \(address) twice"
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

  private func dnsProblem() -> String? {
    for server in dnsServers where !AddressSyntax.isServer(server) {
      return "--dns-servers entry \(GoText.quoted(server)) is neither an IP address nor host:port"
    }
    return nil
  }

  private func countProblem() -> String? {
    if !(0...Limits.threads).contains(threads) {
      return "--threads \(threads) must be between 0 and \(Limits.threads)"
    }
    let counts = [
      ("max-connections", maxConnections), ("max-connections-per-source", maxConnectionsPerSource),
    ]
    for (name, count) in counts where count < 0 { return "--\(name) \(count) must not be negative" }
    return nil
  }

  private func durationProblem() -> String? {
    if healthTimeout <= .zero { return "--health-timeout \(healthTimeout) must be more than 0s" }
    if healthInterval < CommonOptions.smallestProbeInterval {
      return "--health-interval \(healthInterval) must be at least \(CommonOptions.smallestProbeInterval)"
    }
    return drainTimeout < .zero ? "--drain-timeout \(drainTimeout) must not be negative" : nil
  }
}
