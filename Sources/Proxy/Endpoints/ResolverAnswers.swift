internal import CAres
internal import Glibc
public import Reactor

extension Resolver {
  /// Where a host can be reached, and for how long that holds.
  public struct Lookup: Equatable, Sendable {
    /// IPv4 before IPv6, in each the server's order. Never empty.
    public let addresses: [Address]
    /// The smallest time to live of the records, between 1 s and 5 min; 30 s for the hosts file, 5 min for an
    /// IP address.
    public let lifetime: Instant.Span

    static let shortestLifetime = Instant.Span.seconds(1)
    static let longestLifetime = Instant.Span.seconds(300)
    static let localLifetime = Instant.Span.seconds(30)
  }

  /// A name that could not be looked up.
  public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The name as asked for.
    public let name: String
    /// What came instead of an answer.
    public let reason: Reason

    /// As Go prints it: `lookup etcd.example.com: no such host`.
    public var description: String { "lookup \(name): \(reason)" }
  }

  /// Why there is no answer.
  public enum Reason: Hashable, Sendable, CustomStringConvertible {
    /// The name does not exist or has no records of the kind, or it is no name.
    case noSuchHost
    /// The servers failed, refused to answer or sent nonsense.
    case misbehaving
    /// No server answered in time.
    case timeout
    /// Nothing listens at the server's address.
    case refused
    /// `lookupsAtOnce` are under way.
    case tooMany
    /// Anything else, in the words of c-ares.
    case other(String)

    /// Go's words where it has some.
    public var description: String {
      switch self {
      case .noSuchHost: "no such host"
      case .misbehaving: "server misbehaving"
      case .timeout: "i/o timeout"
      case .refused: "connection refused"
      case .tooMany: "too many lookups at once"
      case .other(let words): words
      }
    }
  }

  /// Why there is no resolver: an address that is none, or a lack of memory.
  public struct Unusable: Error, Hashable, Sendable, CustomStringConvertible {
    /// The cause in words.
    public let description: String
  }

  /// What c-ares made of a question.
  enum Answer {
    case addresses(Lookup)
    case services([UInt8])
    case failure(Failure)
  }

  /// A question that c-ares holds. It forgets the resolver when that goes.
  final class Question {
    enum Kind {
      case addresses((Result<Lookup, Failure>) -> Void)
      case services((Result<[UInt8], Failure>) -> Void)
    }

    weak var resolver: Resolver?
    let name: String
    let port: UInt16
    let kind: Kind

    init(resolver: Resolver, name: String, port: UInt16, _ kind: Kind) {
      self.resolver = resolver
      self.name = name
      self.port = port
      self.kind = kind
    }

    /// Takes back what went through c-ares.
    static func from(_ argument: UnsafeMutableRawPointer?) -> Question? {
      guard let argument = unsafe argument else { return nil }
      return unsafe Unmanaged<Question>.fromOpaque(argument).takeRetainedValue()
    }
  }
}

extension Resolver.Failure {
  static func reason(_ status: Int32) -> Resolver.Reason {
    switch status {
    case ARES_ENOTFOUND, ARES_ENODATA, ARES_EBADNAME: .noSuchHost
    // The code of a question that no server was willing to answer, too; see `Resolver.failure`.
    case ARES_ESERVFAIL, ARES_EFORMERR, ARES_ENOTIMP, ARES_EREFUSED, ARES_EBADRESP, ARES_ECONNREFUSED:
      .misbehaving
    case ARES_ETIMEOUT: .timeout
    default: .other(words(status))
    }
  }

  static func words(_ status: Int32) -> String {
    guard let text = unsafe ares_strerror(status) else { return "c-ares error \(status)" }
    return unsafe String(cString: text).lowercased()
  }
}

// MARK: - What c-ares calls

func addressesArrived(
  _ argument: UnsafeMutableRawPointer?, _ status: Int32, _ timeouts: Int32,
  _ list: UnsafeMutablePointer<ares_addrinfo>?
) {
  defer { if let list = unsafe list { unsafe ares_freeaddrinfo(list) } }
  guard let question = unsafe Resolver.Question.from(argument), let resolver = question.resolver
  else { return }
  guard status == ARES_SUCCESS, let list = unsafe list else {
    return resolver.finish(question, resolver.failure(question, status))
  }
  let (addresses, smallest) = unsafe collect(list.pointee.nodes, port: question.port)
  guard !addresses.isEmpty else {
    return resolver.finish(question, resolver.failure(question, ARES_ENODATA))
  }
  let lookup = Resolver.Lookup(addresses: addresses, lifetime: resolver.lifetime(smallest: smallest))
  resolver.finish(question, .addresses(lookup))
}

func servicesArrived(
  _ argument: UnsafeMutableRawPointer?, _ status: Int32, _ timeouts: Int32,
  _ bytes: UnsafeMutablePointer<UInt8>?, _ count: Int32
) {
  guard let question = unsafe Resolver.Question.from(argument), let resolver = question.resolver
  else { return }
  guard status == ARES_SUCCESS, let bytes = unsafe bytes, count > 0 else {
    let cause = status == ARES_SUCCESS ? ARES_ENODATA : status
    return resolver.finish(question, resolver.failure(question, cause))
  }
  let message = unsafe [UInt8](UnsafeBufferPointer(start: bytes, count: Int(count)))
  resolver.finish(question, .services(message))
}

/// The addresses of a list, IPv4 first, and the smallest time to live in seconds.
private func collect(
  _ first: UnsafeMutablePointer<ares_addrinfo_node>?, port: UInt16
) -> (addresses: [Address], smallest: Int) {
  var four: [Address] = []
  var six: [Address] = []
  var smallest = Int.max
  var next = unsafe first
  while let node = unsafe next {
    unsafe next = node.pointee.ai_next
    guard let name = unsafe node.pointee.ai_addr else { continue }
    let length = unsafe node.pointee.ai_addrlen
    switch unsafe Address(name, length: length) {
    case .v4(let bits, _)?: four.append(.v4(bits, port: port))
    case .v6(let high, let low, _, let scope)?:
      six.append(.v6(high: high, low: low, port: port, scope: scope))
    default: continue
    }
    smallest = min(smallest, Int(unsafe node.pointee.ai_ttl))
  }
  return (four + six, smallest)
}

// MARK: - Making the channel

extension Resolver {
  private static let libraryStatus = ares_library_init(ARES_LIB_INIT_ALL)
  private static let nameServerPort: UInt16 = 53

  static func makeChannel(
    _ sockets: ResolverSockets, timeout: Instant.Span, attempts: Int
  ) throws(Unusable) -> OpaquePointer {
    guard libraryStatus == ARES_SUCCESS else { throw Unusable(description: Failure.words(libraryStatus)) }
    var options = unsafe ares_options()
    unsafe options.timeout = Int32(clamping: max(1, timeout.nanoseconds / 1_000_000))
    unsafe options.tries = Int32(clamping: max(1, attempts))
    unsafe options.sock_state_cb = socketStateChanged
    unsafe options.sock_state_cb_data = sockets.argument
    var channel: OpaquePointer?
    let mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB
    let status = unsafe ares_init_options(&channel, &options, mask)
    guard status == ARES_SUCCESS, let channel = unsafe channel else {
      throw Unusable(description: Failure.words(status))
    }
    return unsafe channel
  }

  static func serverAddresses(_ texts: [String]) throws(Unusable) -> [Address] {
    var addresses: [Address] = []
    for text in texts {
      guard let address = serverAddress(text) else {
        throw Unusable(description: "\(text) is not the IP address of a DNS server, with or without port")
      }
      addresses.append(address)
    }
    return addresses
  }

  private static func serverAddress(_ text: String) -> Address? {
    var address = Address(ip: text, port: nameServerPort)
    if address == nil, let pair = try? HostPort(text), let port = pair.portNumber, port > 0 {
      address = Address(ip: pair.host, port: port)
    }
    // c-ares 1.18 has no room for the interface of a link-local server.
    if case .v6(_, _, _, let scope)? = address, scope != 0 { return nil }
    return address
  }

  static func setServers(_ addresses: [Address], of channel: OpaquePointer) -> Int32 {
    unsafe withUnsafeTemporaryAllocation(of: ares_addr_port_node.self, capacity: addresses.count) { nodes in
      var next: UnsafeMutablePointer<ares_addr_port_node>?
      for (index, address) in addresses.enumerated().reversed() {
        guard let node = unsafe nodes.baseAddress.map({ unsafe $0 + index }) else { return ARES_ENOMEM }
        unsafe write(address, to: node, next)
        unsafe next = node
      }
      return unsafe ares_set_servers_ports(channel, next)
    }
  }

  private static func write(
    _ address: Address, to node: UnsafeMutablePointer<ares_addr_port_node>,
    _ next: UnsafeMutablePointer<ares_addr_port_node>?
  ) {
    unsafe address.withSocketAddress { name, _ in
      let raw = unsafe UnsafeRawPointer(name)
      // The address lies behind family and port, and in IPv6 behind the flow label.
      let offset = address.family == AF_INET ? 4 : 8
      unsafe rw_ares_server(node, address.family, raw + offset, address.port, next)
    }
  }
}
