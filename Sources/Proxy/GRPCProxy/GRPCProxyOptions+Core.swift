internal import Reactor

/// The options as the machines take them.
extension GRPCProxyOptions {
  /// Towards clients.
  var clientSettings: HTTP2Settings {
    HTTP2Settings(
      maxConcurrentStreams: maxConcurrentStreams == 0 ? .max : maxConcurrentStreams,
      streamWindow: Limits.clientStreamWindow, maxStreamWindow: Limits.largestStreamWindow,
      connectionWindow: Limits.connectionWindow, maxHeaderListBytes: Limits.headerListBytes,
      pingMinimum: leastClientPingInterval.span, pingsWithoutStream: false)
  }

  /// Towards etcd.
  static var upstreamSettings: HTTP2Settings {
    HTTP2Settings(
      maxConcurrentStreams: 0, streamWindow: Limits.upstreamStreamWindow,
      maxStreamWindow: Limits.largestStreamWindow, connectionWindow: Limits.connectionWindow,
      maxHeaderListBytes: Limits.headerListBytes, pingMinimum: .zero, pingsWithoutStream: true)
  }

  /// Where the endpoints come from.
  var endpointSettings: EndpointSettings {
    EndpointSettings(common, trustedCAFile: caFile, balance: .roundRobin)
  }
}
