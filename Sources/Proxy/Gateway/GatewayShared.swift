internal import Reactor

/// What the control thread tells a core.
enum CoreMessage: Sendable {
  /// The endpoints have changed.
  case table(EndpointTable)
  /// The endpoint does not answer any more: end its connections.
  case endpointHung(Int)
  /// Stop accepting, and be done by then.
  case drain(until: Instant)
  /// End everything now.
  case stop
  /// Show that the core's loop turns.
  case ping
}

/// What all threads of a gateway share.
final class GatewayShared: Sendable {
  let options: GatewayOptions
  let log: Log
  let endpoints: EndpointContext
  let counters: GatewayCounters
  let admission: Admission
  let group: CoreGroup<CoreMessage>
  let backend: IOBackend

  init(options: GatewayOptions, log: Log, cores: Int, backend: IOBackend, connectionLimit: Int) {
    self.options = options
    self.log = log
    self.backend = backend
    endpoints = EndpointContext(settings: options.endpointSettings, log: log, cores: cores)
    counters = GatewayCounters(cores: cores)
    admission = Admission(connections: connectionLimit, perSource: options.maxConnectionsPerSource)
    group = CoreGroup(cores: cores)
  }
}

extension GatewayShared {
  /// What is known of the endpoints.
  var board: EndpointBoard { endpoints.board }
}
