internal import Glibc
internal import Reactor

/// The proxy's own figures, with etcd's names where etcd's proxy has them.
extension ProxyPages {
  func metrics() -> [UInt8] {
    var text = MetricsText()
    calls(&text)
    coalescing(&text)
    leases(&text)
    cache(&text)
    health(&text)
    connections(&text)
    upstream(&text)
    ProcessMetrics.write(&text, backend: shared.backend, cores: shared.counters.cores)
    return text.bytes
  }

  private func labels(_ method: EtcdMethod, kind: Bool) -> MetricsText.Labels {
    let names: MetricsText.Labels = [
      ("grpc_service", "\(method.service)"), ("grpc_method", "\(method.name)"),
    ]
    guard kind else { return names }
    let type =
      switch method.kind {
      case .unary: "unary"
      case .serverStream: "server_stream"
      case .bidirectionalStream: "bidi_stream"
      }
    return [("grpc_type", type)] + names
  }

  private func calls(_ text: inout MetricsText) {
    let counters = shared.counters
    let used = EtcdMethod.allCases.filter { counters.started($0) > 0 }
    text.family("grpc_server_started_total", .counter, help: "Total number of RPCs started on the server.")
    for method in used { text.sample(labels: labels(method, kind: true), counters.started(method)) }
    text.family(
      "grpc_server_handled_total", .counter,
      help: "Total number of RPCs completed on the server, regardless of success or failure.")
    for method in used {
      for code in GRPCStatus.Code.allCases where counters.handled(method, code) > 0 {
        text.sample(
          labels: labels(method, kind: true) + [("grpc_code", code.name)], counters.handled(method, code))
      }
    }
    text.family(
      "grpc_server_msg_received_total", .counter,
      help: "Total number of RPC stream messages received on the server.")
    for method in used { text.sample(labels: labels(method, kind: true), counters.received(method)) }
    text.family(
      "grpc_server_msg_sent_total", .counter, help: "Total number of gRPC stream messages sent by the server."
    )
    for method in used { text.sample(labels: labels(method, kind: true), counters.sent(method)) }
    text.family(
      "ringway_proxy_call_seconds", .histogram, help: "Time from a call's first byte to its last, by method.")
    for method in used { text.sample(labels: labels(method, kind: false), counters.times(method)) }
  }

  /// Zero while watches and heartbeats are forwarded one to one.
  private func coalescing(_ text: inout MetricsText) {
    let counters = shared.counters
    let (watchers, groups) = (counters[.watchers], counters[.watchGroups])
    text.family(
      "etcd_grpc_proxy_watchers_coalescing_total", .gauge,
      help: "Total number of current watchers coalescing.")
    text.sample(watchers > groups ? watchers - groups : 0)
    let (deliveries, blocks) = (counters[.watchDeliveries], counters[.watchBlocks])
    text.family(
      "etcd_grpc_proxy_events_coalescing_total", .counter, help: "Total number of events coalescing.")
    text.sample(deliveries > blocks ? deliveries - blocks : 0)
    let figures: [(String, MetricsText.Kind, String, UInt64)] = [
      ("watchers", .gauge, "Watches of clients that share watches upstream.", watchers),
      ("watch_groups", .gauge, "Watches upstream that clients share.", groups),
      ("watch_streams", .gauge, "Watch streams to etcd that carry them.", counters[.watchStreams]),
      ("watch_covers", .gauge, "Those of them that cover a prefix.", counters[.watchCovers]),
      (
        "watch_lanes", .gauge, "Ranges that have no watch upstream because of them.", counters[.watchLanes]
      ),
      (
        "watch_history_bytes", .gauge, "Bytes of events kept for those who are behind.",
        counters[.watchHistoryBytes]
      ),
      ("watchers_joined_total", .counter, "Watches that clients have asked for.", counters[.watchersJoined]),
      (
        "watch_catch_ups_total", .counter, "Times a watch wanted what no history held.",
        counters[.watchCatchUps]
      ),
      (
        "watch_pauses_total", .counter, "Times a watch that brings the past had to wait for its watchers.",
        counters[.watchPauses]
      ),
      ("watch_resumes_total", .counter, "Watches upstream that were made again.", counters[.watchResumes]),
      ("watch_responses_received_total", .counter, "Responses with events from etcd.", blocks),
      ("watch_events_received_total", .counter, "Events in them.", counters[.watchEvents]),
      (
        "watch_events_unwanted_total", .counter, "Those of covered prefixes that nobody watches.",
        counters[.watchUnwanted]
      ),
      ("watch_responses_sent_total", .counter, "Responses with events to clients.", deliveries),
    ]
    for (name, kind, help, value) in figures {
      text.family("ringway_proxy_\(name)", kind, help: help)
      text.sample(value)
    }
  }
  private func leases(_ text: inout MetricsText) {
    let counters = shared.counters
    let figures: [(String, MetricsText.Kind, String, UInt64)] = [
      (
        "heartbeats_received_total", .counter, "Heartbeats of clients that share streams to etcd.",
        counters[.heartbeatsReceived]
      ),
      (
        "heartbeats_sent_total", .counter, "Heartbeats sent to etcd for them.", counters[.heartbeatsSent]
      ),
      (
        "heartbeats_waiting", .gauge, "Heartbeats of clients that etcd has not answered.",
        counters[.heartbeatsWaiting]
      ),
      ("lease_streams", .gauge, "Streams of heartbeats to etcd.", counters[.heartbeatStreams]),
    ]
    for (name, kind, help, value) in figures {
      text.family("ringway_proxy_\(name)", kind, help: help)
      text.sample(value)
    }
  }

  private func health(_ text: inout MetricsText) {
    text.family("etcd_server_health_success", .counter, help: "The total number of successful health checks.")
    text.sample(shared.counters[.healthSuccesses])
    text.family("etcd_server_health_failures", .counter, help: "The total number of failed health checks.")
    text.sample(shared.counters[.healthFailures])
  }

  private func connections(_ text: inout MetricsText) {
    let counters = shared.counters
    let figures: [(String, MetricsText.Kind, String, UInt64)] = [
      ("connections_accepted_total", .counter, "Client connections accepted.", counters[.accepted]),
      ("connections_active", .gauge, "Client connections open now.", UInt64(shared.admission.active)),
      ("connections_refused_total", .counter, "Client connections refused by a limit.", counters[.refused]),
      (
        "accept_pauses_total", .counter, "Times that accepting paused for want of descriptors.",
        counters[.acceptPauses]
      ),
      (
        "handshake_failures_total", .counter, "Clients that never got as far as a request.",
        counters[.handshakeFailures]
      ),
      ("retries_total", .counter, "Calls made again at another endpoint.", counters[.retries]),
      ("pages_total", .counter, "HTTP pages asked for.", counters[.pages]),
    ]
    for (name, kind, help, value) in figures {
      text.family("ringway_proxy_\(name)", kind, help: help)
      text.sample(value)
    }
    text.family(
      "ringway_proxy_bytes_total", .counter, help: "Bytes on closed connections, as sent on the wire.")
    text.sample(labels: [("side", "client"), ("direction", "in")], counters[.clientBytesIn])
    text.sample(labels: [("side", "client"), ("direction", "out")], counters[.clientBytesOut])
    text.sample(labels: [("side", "etcd"), ("direction", "in")], counters[.upstreamBytesIn])
    text.sample(labels: [("side", "etcd"), ("direction", "out")], counters[.upstreamBytesOut])
    text.family(
      "ringway_proxy_errors_total", .counter,
      help: "Calls that ended with an error of the proxy's own making, by blame.")
    text.sample(labels: [("blame", "client")], counters[.errorsOfClients])
    text.sample(labels: [("blame", "etcd")], counters[.errorsOfEtcd])
    text.sample(labels: [("blame", "proxy")], counters[.errorsOfProxy])
  }

  private func upstream(_ text: inout MetricsText) {
    let all = currentEndpoints
    text.family(
      "ringway_upstream_up", .gauge,
      help: "Whether the endpoint takes calls: 1 well, 0.5 without leader, 0 down.")
    for endpoint in all {
      let value =
        switch shared.board.status(endpoint.slot) {
        case .up: 1.0
        case .sick: 0.5
        case .down: 0.0
        }
      text.sample(labels: [("endpoint", endpoint.name)], number: value)
    }
    text.family("ringway_upstream_leader", .gauge, help: "Whether the endpoint is the leader.")
    for endpoint in all {
      guard let state = prober.states[endpoint.slot] else { continue }
      text.sample(labels: [("endpoint", endpoint.name)], state.leader == state.header.memberID ? 1 : 0)
    }
    text.family("ringway_upstream_probe_seconds", .gauge, help: "How long the last health check took.")
    for endpoint in all {
      guard let span = prober.latencies[endpoint.slot] else { continue }
      text.sample(labels: [("endpoint", endpoint.name)], number: span.seconds)
    }
    text.family("ringway_upstream_connects_total", .counter, help: "Connections to endpoints that came up.")
    text.sample(shared.counters[.connects])
    text.family(
      "ringway_upstream_connect_failures_total", .counter, help: "Connections to endpoints that did not.")
    text.sample(shared.counters[.connectFailures])
  }

  /// An honest substitute for Go's profiles under the same flag: where the proxy stands.
  func debugPage() -> Page {
    var lines = [
      "Ringway \(Version.text) grpc-proxy", "cores: \(shared.counters.cores)",
      "backend: \(shared.backend.rawValue)",
    ]
    lines.append("io features: \(shared.group.features.joined(separator: ", "))")
    lines.append("client connections: \(shared.admission.active)")
    let open = EtcdMethod.allCases.map { method in
      (
        method,
        shared.counters.started(method)
          &- GRPCStatus.Code.allCases.reduce(0) { $0 &+ shared.counters.handled(method, $1) }
      )
    }
    for (method, count) in open where count > 0 && count < 1 << 40 {
      lines.append("open calls \(method.service)/\(method.name): \(count)")
    }
    for endpoint in currentEndpoints {
      lines.append("endpoint \(endpoint.name): \(shared.board.status(endpoint.slot))")
    }
    lines.append("No profiles are served: use perf(1) on the process. Counters: /proxy/metrics")
    return Page(
      status: 200, contentType: "text/plain; charset=utf-8",
      body: Array((lines.joined(separator: "\n") + "\n").utf8))
  }
}
