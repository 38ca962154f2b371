internal import Glibc
internal import Reactor

/// SRV discovery, as etcd's two commands share it (client/pkg/srv/srv.go: GetClient; server/etcdmain/util.go:
/// discoverEndpoints), with three differences: priorities and weights are kept as RFC 2782 means them, the check of
/// secure endpoints is a TLS handshake, and the records are looked up again when their lifetime ends.
final class Discovery {
  typealias Listed = (name: EndpointName, priority: UInt16, weight: UInt16)

  private enum Timing {
    static let least = Instant.Span.seconds(1)
    static let most = Instant.Span.seconds(300)
    static let retry = Instant.Span.seconds(5)
  }

  /// One of the two look-ups.
  private struct Query {
    let scheme: String
    let name: String
    var services: [DNSAnswer.Service] = []
    var failure: String?
    var isAnswered = false
  }

  private unowned let core: Core
  private let context: EndpointContext
  private let resolver: Resolver
  private let check: SecureCheck
  private var queries: [Query] = []
  private var due = Instant.distantFuture
  private var lifetime: Instant.Span?
  private var isRunning = false
  /// Told after each round, with what may be used.
  var found: ([Listed]) -> Void = { _ in }
  /// True after the first round.
  private(set) var isSettled = false
  /// Why the last round's look-ups failed, if both did.
  private(set) var failure: String?

  init(core: Core, owner: UInt8, context: EndpointContext, resolver: Resolver) {
    self.core = core
    self.context = context
    self.resolver = resolver
    check = SecureCheck(core: core, owner: owner, resolver: resolver, caFile: context.settings.trustedCAFile)
  }

  /// Looks the records up; the answer comes through `found`.
  func run() {
    guard !isRunning else { return }
    isRunning = true
    lifetime = nil
    let domain = context.settings.discoveryDomain
    let suffix =
      context.settings.discoveryServiceName.isEmpty ? "" : "-" + context.settings.discoveryServiceName
    queries = [
      Query(scheme: "https", name: "_etcd-client-ssl\(suffix)._tcp.\(domain)"),
      Query(scheme: "http", name: "_etcd-client\(suffix)._tcp.\(domain)"),
    ]
    for index in queries.indices {
      resolver.services(of: queries[index].name) { [unowned self] result in answered(index, result) }
    }
  }

  /// Looks the records up again when their lifetime has ended.
  func tick() {
    if core.now >= due { run() }
  }

  private func answered(_ index: Int, _ result: Result<[UInt8], Resolver.Failure>) {
    queries[index].isAnswered = true
    switch result {
    case .failure(let failure): queries[index].failure = failure.description
    case .success(let message):
      do throws(DNSAnswer.Malformed) {
        let answer = try unsafe DNSAnswer(message.span.bytes)
        queries[index].services = answer.services.filter { $0.target != "." && $0.port != 0 }
        if let seconds = answer.lifetime {
          let span = Instant.Span.seconds(UInt64(seconds))
          lifetime = min(lifetime ?? span, span)
        }
        if queries[index].services.isEmpty {
          queries[index].failure = "lookup \(queries[index].name): no such host"
        }
      } catch {
        queries[index].failure = "lookup \(queries[index].name): server misbehaving"
      }
    }
    if queries.allSatisfy(\.isAnswered) { bothAnswered() }
  }

  private func bothAnswered() {
    due = core.now + min(Timing.most, max(Timing.least, lifetime ?? Timing.retry))
    if let https = queries[0].failure, let http = queries[1].failure {
      failure = "dns lookup errors: \(https) and \(http)"
      if isSettled {
        context.log.warn("discovery failed; endpoints stay as they are", .string("error", failure ?? ""))
      }
      return conclude([])
    }
    failure = nil
    let all = queries.flatMap { query in
      query.services.map { (scheme: query.scheme, service: $0) }
    }
    let texts = all.map { "\($0.scheme)://\($0.service.target):\($0.service.port)" }
    let server = LogField.string("srv-server", context.settings.discoveryDomain)
    if !isSettled { context.log.info("discovered cluster from SRV", server, .strings("endpoints", texts)) }
    let listed: [Listed] = zip(all, texts).compactMap { item, text in
      guard let name = try? EndpointName(text) else { return nil }
      return (name, item.service.priority, item.service.weight)
    }
    if context.settings.insecureDiscovery { return conclude(listed) }
    validate(listed, texts)
  }

  private func validate(_ listed: [Listed], _ texts: [String]) {
    let server = LogField.string("srv-server", context.settings.discoveryDomain)
    if !isSettled {
      context.log.info("validating discovered SRV endpoints", server, .strings("endpoints", texts))
    }
    check.validate(listed.map(\.name)) { [unowned self] problems in
      let good = zip(listed, problems).filter { $0.1 == nil }.map(\.0)
      let errors = problems.compactMap { $0 }
      if !errors.isEmpty {
        context.log.warn(
          "failed to validate discovered endpoints", server,
          .strings("endpoints", good.map(\.name.displayName)),
          .string("error", errors.joined(separator: ",")))
      } else if !isSettled {
        context.log.info(
          "using validated discovered SRV endpoints", server,
          .strings("endpoints", good.map(\.name.displayName)))
      }
      conclude(good)
    }
  }

  private func conclude(_ listed: [Listed]) {
    isRunning = false
    isSettled = true
    found(listed)
  }

  /// True when the completion was for the check of secure endpoints.
  func complete(_ completion: Completion) -> Bool { check.complete(completion) }

  /// True when the timer was for the check of secure endpoints.
  func expire(_ token: Token) -> Bool { check.expire(token) }
}
