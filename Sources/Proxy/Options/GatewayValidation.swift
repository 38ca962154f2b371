extension GatewayOptions {
  func firstProblem() -> OptionProblem? {
    (addressProblem() ?? common.firstProblem() ?? durationProblem()).map { OptionProblem($0) }
  }

  private func addressProblem() -> String? {
    for address in common.listenAddresses {
      if let fault = AddressSyntax.listenFault(address) {
        return "failed to validate listen address: \(address) (\(fault))"
      }
    }
    if let problem = common.listenProblem() { return problem }
    if common.endpoints.isEmpty, common.discoveryDomain.isEmpty {
      return "no endpoints found: --endpoints is empty and --discovery-srv is not set"
    }
    if common.endpoints.contains("") {
      return "error parsing endpoint \"\": --endpoints has an empty entry"
    }
    if !common.metricsAddress.isEmpty, let fault = AddressSyntax.metricsFault(common.metricsAddress) {
      return "--metrics-addr \(common.metricsAddress) cannot be used: \(fault)"
    }
    return nil
  }

  private func durationProblem() -> String? {
    if connectTimeout <= .zero { return "--connect-timeout \(connectTimeout) must be more than 0s" }
    let notNegative = [
      ("race-delay", raceDelay), ("idle-timeout", idleTimeout), ("tcp-keepalive", tcpKeepalive),
      ("tcp-user-timeout", tcpUserTimeout),
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
