internal import Reactor

extension GatewayOptions {
  /// True when something needs each client's address; otherwise the call that asks for it is spared.
  var needsSource: Bool { accessLog || common.maxConnectionsPerSource > 0 || proxyProtocolOut != .off }

  /// Longest pause between two attempts to bring an endpoint back, as the flag sets it.
  var retryLimit: Instant.Span { effectiveRetryDelay.span }
}

extension GatewayOptions {
  /// What the parts that deal with endpoints need to know.
  var endpointSettings: EndpointSettings {
    EndpointSettings(
      endpoints: endpoints, endpointsAreExplicit: endpointsAreExplicit, weights: endpointWeights,
      discoveryDomain: discoveryDomain, discoveryServiceName: discoveryServiceName,
      insecureDiscovery: insecureDiscovery, trustedCAFile: trustedCAFile, dnsServers: dnsServers,
      balance: balance)
  }
}
