internal import Reactor

/// What `--metrics-addr` of a gateway serves.
struct GatewayPages {
  let shared: GatewayShared
  /// The endpoints in force.
  let endpoints: () -> [Endpoint]

  func answer(_ request: RequestHead) -> AdminServer.Page {
    guard request.method == "GET" || request.method == "HEAD" else {
      return text(405, "Method Not Allowed\n", headers: [("Allow", "GET, HEAD")])
    }
    switch request.path {
    case "/metrics": return .init(status: 200, contentType: MetricsText.contentType, body: metrics())
    case "/health": return health()
    case "/":
      return text(
        200, "Ringway \(Version.text) gateway\n\n/metrics  counters for Prometheus\n/health   can it serve?\n"
      )
    default: return text(404, "404 page not found\n")
    }
  }

  private func text(_ status: Int, _ body: String, headers: [(String, String)] = []) -> AdminServer.Page {
    .init(status: status, contentType: "text/plain; charset=utf-8", headers: headers, body: Array(body.utf8))
  }

  /// Healthy means that a new client would find an endpoint. In the shape of etcd's `/health`.
  private func health() -> AdminServer.Page {
    let serves = endpoints().contains { shared.board.status($0.slot) != .down }
    let body =
      serves ? #"{"health":"true","reason":""}"# : #"{"health":"false","reason":"no endpoint answers"}"#
    return .init(status: serves ? 200 : 503, contentType: "application/json", body: Array((body + "\n").utf8))
  }

  // MARK: Metrics

  private func metrics() -> [UInt8] {
    var text = MetricsText()
    connections(&text)
    endpointStates(&text)
    ProcessMetrics.write(&text, backend: shared.backend, cores: shared.group.links.count)
    return text.bytes
  }

  private func connections(_ text: inout MetricsText) {
    let counters = shared.counters
    text.family("ringway_gateway_connections_accepted_total", .counter, help: "Client connections accepted.")
    text.sample(counters.sum(.accepted))
    text.family("ringway_gateway_connections_active", .gauge, help: "Client connections open now.")
    text.sample(UInt64(shared.admission.active))
    text.family(
      "ringway_gateway_connections_refused_total", .counter, help: "Client connections refused by a limit.")
    text.sample(counters.sum(.refused))
    text.family("ringway_gateway_connections_ended_total", .counter, help: "Connections ended, by reason.")
    for reason in Session.Reason.allCases {
      text.sample(labels: [("reason", reason.label)], counters.sum(.ended(reason)))
    }
    text.family(
      "ringway_gateway_connections_moved_total", .counter,
      help: "Connections taken to another endpoint because theirs broke before its first byte.")
    text.sample(counters.sum(.moved))
    text.family(
      "ringway_gateway_accept_pauses_total", .counter,
      help: "Times accepting paused for want of descriptors or memory.")
    text.sample(counters.sum(.acceptPauses))
    text.family(
      "ringway_gateway_connect_seconds", .histogram,
      help: "Time to connect to the endpoint that took the connection.")
    let buckets = (0...GatewayCounters.connectBounds.count).map { counters.sum(.connectBucket($0)) }
    text.sample(
      Histogram(
        bounds: GatewayCounters.connectBounds, counts: buckets,
        sum: Double(counters.sum(.connectMicroseconds)) / 1e6))
  }

  private func endpointStates(_ text: inout MetricsText) {
    let all = endpoints()
    let board = shared.board
    text.family("ringway_gateway_endpoint_state", .gauge, help: "1 for the state that the endpoint is in.")
    for endpoint in all {
      for status in EndpointBoard.Status.allCases {
        let holds = board.status(endpoint.slot) == status
        text.sample(labels: [("endpoint", endpoint.name), ("state", "\(status)")], holds ? 1 as UInt64 : 0)
      }
    }
    let families: [(String, String, EndpointBoard.Field)] = [
      ("ringway_gateway_endpoint_connections_total", "Connections opened to the endpoint.", .opened),
      ("ringway_gateway_endpoint_connect_failures_total", "Connection attempts that failed.", .failed),
      ("ringway_gateway_endpoint_sent_bytes_total", "Bytes from clients to the endpoint.", .bytesUp),
      ("ringway_gateway_endpoint_received_bytes_total", "Bytes from the endpoint to clients.", .bytesDown),
    ]
    for (name, help, field) in families {
      text.family(name, .counter, help: help)
      for endpoint in all {
        text.sample(labels: [("endpoint", endpoint.name)], board.sum(field, slot: endpoint.slot))
      }
    }
    text.family(
      "ringway_gateway_endpoint_connections_active", .gauge, help: "Connections open to the endpoint.")
    for endpoint in all {
      text.sample(labels: [("endpoint", endpoint.name)], UInt64(board.active(slot: endpoint.slot)))
    }
  }
}
