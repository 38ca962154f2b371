internal import Glibc
internal import Reactor

/// The pages of the gRPC proxy: etcd's metrics and health, and its own.
final class ProxyPages {
  typealias Page = AdminServer.Page
  typealias Answer = (Page) -> Void

  /// A health check of etcd's proxy has so long.
  private static let healthLimit = Instant.Span.seconds(1)
  private static let metricsLimit = Instant.Span.seconds(5)

  let shared: ProxyShared
  private let pool = BlockPool()
  private let client: EtcdClient
  private let fetcher: PageFetcher
  let prober: MemberProber
  private let certificates: Certificates
  private let endpoints: () -> [Endpoint]

  init(
    shared: ProxyShared, client: EtcdClient, fetcher: PageFetcher, prober: MemberProber,
    certificates: Certificates, endpoints: @escaping () -> [Endpoint]
  ) {
    self.shared = shared
    self.client = client
    self.fetcher = fetcher
    self.prober = prober
    self.certificates = certificates
    self.endpoints = endpoints
  }

  /// Those in force.
  var currentEndpoints: [Endpoint] { endpoints() }

  func make(_ request: PageRequest, _ answer: @escaping Answer) {
    let path =
      request.target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
    switch path {
    case "/metrics": etcdMetrics(answer)
    case "/health": health(request, answer)
    case "/proxy/health": proxyHealth(request, answer)
    case "/proxy/metrics": answer(Page(status: 200, contentType: MetricsText.contentType, body: metrics()))
    case "/debug", "/debug/", "/debug/pprof", "/debug/pprof/":
      answer(shared.options.pprof ? debugPage() : notFound)
    default: answer(notFound)
    }
  }

  private var notFound: Page { text(404, "404 page not found\n") }

  private func text(_ status: Int, _ body: String, _ headers: [(String, String)] = []) -> Page {
    Page(status: status, contentType: "text/plain; charset=utf-8", headers: headers, body: Array(body.utf8))
  }

  /// Best first: the one in use, then the rest.
  private var candidates: [Endpoint] {
    let sticky = shared.sticky.load(ordering: .relaxed)
    return endpoints().sorted { first, second in
      let ranks = [first, second].map {
        (shared.board.status($0.slot).rawValue, $0.slot == sticky ? 0 : 1, $0.slot)
      }
      return ranks[0] < ranks[1]
    }
  }

  // MARK: etcd's metrics

  /// Those of one member; the next one's when it does not answer. etcd's proxy stays with one for ever.
  private func etcdMetrics(_ answer: @escaping Answer) { etcdMetrics(candidates[...], answer) }

  private func etcdMetrics(_ rest: ArraySlice<Endpoint>, _ answer: @escaping Answer) {
    guard let endpoint = rest.first else {
      return answer(text(500, "Internal server error\n", [("X-Content-Type-Options", "nosniff")]))
    }
    let done: EtcdClient.Completion = { [unowned self] result in
      switch result {
      case .success(let body): answer(Page(status: 200, contentType: "text/plain; version=0.0.4", body: body))
      case .failure: etcdMetrics(rest.dropFirst(), answer)
      }
    }
    // Over TLS etcd serves pages and calls alike on HTTP/2; in plain text its pages want HTTP/1.
    if certificates.client != nil {
      client.get("/metrics", at: endpoint, within: Self.metricsLimit, done)
    } else {
      fetcher.get("/metrics", at: endpoint, within: Self.metricsLimit, done)
    }
  }

  // MARK: Health

  private func health(_ request: PageRequest, _ answer: @escaping Answer) {
    guard request.method == "GET" else { return answer(wrongMethod) }
    var key = ByteBuffer(pool)
    RangeRequest(key: Array((shared.options.namespace + "a").utf8)).encode(into: &key)
    check(candidates[...], unsafe Array(key.bytes), nil, answer)
  }

  private var wrongMethod: Page { text(405, "Method Not Allowed\n", [("Allow", "GET")]) }

  /// A linearizable read at one member after another within the limit: healthy is a cluster that answers anybody.
  private func check(
    _ rest: ArraySlice<Endpoint>, _ request: [UInt8], _ failure: EtcdClient.Failure?,
    _ answer: @escaping Answer
  ) {
    guard let endpoint = rest.first else {
      let reason = failure.map { "GET ERROR:\($0.text)" } ?? "GET ERROR:no endpoint"
      return answer(healthPage(reason))
    }
    client.call("/etcdserverpb.KV/Range", request, at: endpoint, within: Self.healthLimit) {
      [unowned self] result in
      switch result {
      case .success: answer(healthPage(nil))
      case .failure(.status(let status)) where Self.isOnlyForbidden(status): answer(healthPage(nil))
      case .failure(let failure): check(rest.dropFirst(), request, failure, answer)
      }
    }
  }

  /// With auth on a reader without a name is refused, by a member that is well.
  private static func isOnlyForbidden(_ status: GRPCStatus) -> Bool {
    status.code == .permissionDenied || status.code == .unauthenticated
      || status.message.elementsEqual("etcdserver: user name is empty".utf8)
  }

  /// The proxy's own: its threads turn and it has an endpoint to go to. etcd's proxy dials itself.
  private func proxyHealth(_ request: PageRequest, _ answer: @escaping Answer) {
    guard request.method == "GET" else { return answer(wrongMethod) }
    if !endpoints().contains(where: { shared.board.status($0.slot) != .down }) {
      return answer(healthPage("no etcd endpoint answers"))
    }
    answer(healthPage(nil))
  }

  private func healthPage(_ reason: String?) -> Page {
    shared.counters.add(reason == nil ? .healthSuccesses : .healthFailures, core: shared.counters.cores)
    guard let reason else { return text(200, #"{"health":"true","reason":""}"#) }
    let page = text(
      503, #"{"health":"false","reason":"\#(Self.escaped(reason))"}"# + "\n",
      [("X-Content-Type-Options", "nosniff")])
    shared.log.warn(
      "/health error", .string("output", String(decoding: page.body, as: UTF8.self)), .int("status-code", 503)
    )
    return page
  }

  private static func escaped(_ text: String) -> String {
    text.reduce(into: "") { result, character in
      switch character {
      case "\"", "\\": result += "\\\(character)"
      case _ where character.asciiValue.map { $0 < 0x20 } == true: result += " "
      default: result.append(character)
      }
    }
  }
}
