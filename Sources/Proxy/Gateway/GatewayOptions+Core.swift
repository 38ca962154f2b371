internal import Reactor

extension GatewayOptions {
  /// True when something needs each client's address; otherwise the call that asks for it is spared.
  var needsSource: Bool { accessLog || common.maxConnectionsPerSource > 0 || proxyProtocolOut != .off }

  /// Longest pause between two attempts to bring an endpoint back, as the flag sets it.
  var retryLimit: Instant.Span { effectiveRetryDelay.span }

  /// What the parts that deal with endpoints need to know.
  var endpointSettings: EndpointSettings {
    EndpointSettings(common, trustedCAFile: trustedCAFile, balance: balance)
  }
}
