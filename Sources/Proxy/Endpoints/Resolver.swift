internal import CAres
internal import Glibc
public import Reactor

/// Looks names up without waiting: c-ares makes the queries, the core's kernel watches its sockets.
///
/// Belongs to one core and its thread. The core passes on completions and timers whose token has the
/// resolver's owner. `done` is called exactly once for every lookup while the resolver lives, from inside
/// `complete`, `expire` or, when no server has to be asked, the call itself; it may start further lookups.
/// Releasing the resolver drops the lookups under way: their `done` is not called.
@safe public final class Resolver {
  /// Lookups at once; more fail with `Reason.tooMany`.
  public static let lookupsAtOnce = 256

  // Not the core itself, which holds the resolver.
  private let kernel: Kernel
  private let timers: TimerWheel
  private let owner: UInt8
  private let sockets: ResolverSockets
  private let channel: OpaquePointer
  private var timer = TimerWheel.Timer.none
  private var underWay = 0
  /// True inside the calls that start a lookup, where an answer can only have come from this machine.
  private var isAsking = false
  private var isDelivering = false
  /// Calls of `done` that are due: they are made when c-ares is not on the stack, which must not be entered
  /// twice.
  private var due: [() -> Void] = []

  /// - Parameters:
  ///   - owner: the owner of every token that the resolver uses, 1…15.
  ///   - servers: `address`, `address:port` or `[address]:port`, port 53 if none; empty for the system's
  ///     `/etc/resolv.conf`. Search domains and the hosts file come from the system in both cases.
  ///   - timeout: how long the first round of questions waits for each server; a later one waits twice as long.
  ///   - attempts: rounds in all. The defaults are those of Go's resolver.
  public init(
    core: Core, owner: UInt8, servers: [String], timeout: Instant.Span = .seconds(5), attempts: Int = 2
  ) throws(Unusable) {
    let addresses = try Self.serverAddresses(servers)
    let sockets = ResolverSockets(kernel: core.kernel, owner: owner)
    kernel = core.kernel
    timers = core.timers
    self.owner = owner
    self.sockets = sockets
    unsafe channel = try Self.makeChannel(sockets, timeout: timeout, attempts: attempts)
    unsafe sockets.serve(channel)
    guard !addresses.isEmpty else { return }
    let status = unsafe Self.setServers(addresses, of: channel)
    if status != ARES_SUCCESS { throw Unusable(description: Failure.words(status)) }
  }

  deinit {
    timers.cancel(timer)
    sockets.end()
    unsafe ares_destroy(channel)
  }

  // MARK: Questions

  /// Finds the addresses of a host: the hosts file, A and AAAA records, IPv4 first. An IP address answers at
  /// once.
  ///
  /// - Parameters:
  ///   - host: an IP address without brackets, or a name; one without a final dot is tried in the search domains.
  ///   - port: goes into every address.
  public func addresses(of host: String, port: UInt16, _ done: @escaping (Result<Lookup, Failure>) -> Void) {
    if let address = Address(ip: host, port: port) {
      return done(.success(Lookup(addresses: [address], lifetime: Lookup.longestLifetime)))
    }
    ask(Question(resolver: self, name: host, port: port, .addresses(done)))
  }

  /// Asks for SRV records (RFC 2782) of a name such as `_etcd-client._tcp.example.com`, search domains
  /// included as in Go's `net.LookupSRV`.
  ///
  /// - Parameter done: gets the DNS message with at least one answer record, unread, at most 64 KiB.
  public func services(of name: String, _ done: @escaping (Result<[UInt8], Failure>) -> Void) {
    ask(Question(resolver: self, name: name, port: 0, .services(done)))
  }

  private func ask(_ question: Question) {
    guard underWay < Self.lookupsAtOnce else {
      return answer(question, .failure(Failure(name: question.name, reason: .tooMany)))
    }
    // Such a name would end early for c-ares, and stand for another one.
    guard !question.name.isEmpty, !question.name.utf8.contains(0) else {
      return answer(question, .failure(Failure(name: question.name, reason: .noSuchHost)))
    }
    underWay += 1
    isAsking = true
    let argument = unsafe Unmanaged.passRetained(question).toOpaque()
    switch question.kind {
    case .addresses:
      // c-ares would sort by connecting a socket to each address; ours is a fixed order.
      var hints = ares_addrinfo_hints(
        ai_flags: ARES_AI_NOSORT, ai_family: AF_UNSPEC, ai_socktype: 0, ai_protocol: 0)
      unsafe ares_getaddrinfo(channel, question.name, nil, &hints, addressesArrived, argument)
    case .services:
      let (kind, type) = (Int32(RW_DNS_CLASS_IN), Int32(RW_DNS_TYPE_SRV))
      unsafe ares_search(channel, question.name, kind, type, servicesArrived, argument)
    }
    isAsking = false
    settle()
  }

  // MARK: Progress

  /// Takes in the end of an operation whose token has the resolver's owner.
  public func complete(_ completion: Completion) {
    guard let (descriptor, readiness) = sockets.take(completion) else { return }
    let reads = readiness.contains(.readable)
    unsafe ares_process_fd(
      channel, reads ? descriptor : ARES_SOCKET_BAD, reads ? ARES_SOCKET_BAD : descriptor)
    settle()
  }

  /// A timer with the resolver's owner fired.
  public func expire(_ token: Token) {
    unsafe ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD)
    settle()
  }

  /// After every visit to c-ares: watch what it waits for, and make the calls that are due.
  private func settle() {
    sockets.arm()
    timers.cancel(timer)
    timer = .none
    var wait = timeval()
    if unsafe ares_timeout(channel, nil, &wait) != nil {
      // c-ares has a clock of its own: a millisecond more, so that it agrees that the time is up.
      let microseconds = UInt64(max(0, wait.tv_sec)) * 1_000_000 + UInt64(max(0, wait.tv_usec)) + 1000
      let token = Token(
        owner: owner, operation: ResolverSockets.Operation.timer, handle: Handle(slot: 0, generation: 0))
      timer = timers.schedule(at: kernel.now + Instant.Span(nanoseconds: microseconds * 1000), token)
    }
    deliver()
  }

  private func deliver() {
    guard !isDelivering else { return }
    isDelivering = true
    while !due.isEmpty {
      let calls = due
      due = []
      for call in calls { call() }
    }
    isDelivering = false
  }

  // MARK: Answers

  /// c-ares is done with a question.
  func finish(_ question: Question, _ answer: Answer) {
    underWay -= 1
    due.append { [self] in self.answer(question, answer) }
  }

  /// A failure in the words of c-ares, told from the one other failure that it has no code for.
  func failure(_ question: Question, _ status: Int32) -> Answer {
    let refused = status == ARES_ECONNREFUSED && sockets.refused
    return .failure(Failure(name: question.name, reason: refused ? .refused : Failure.reason(status)))
  }

  /// What is in the hosts file has no lifetime, and c-ares gives it a zero.
  func lifetime(smallest: Int) -> Instant.Span {
    if isAsking { return Lookup.localLifetime }
    return min(max(.seconds(UInt64(max(0, smallest))), Lookup.shortestLifetime), Lookup.longestLifetime)
  }

  private func answer(_ question: Question, _ answer: Answer) {
    switch (question.kind, answer) {
    case (.addresses(let done), .addresses(let lookup)): done(.success(lookup))
    case (.addresses(let done), .failure(let failure)): done(.failure(failure))
    case (.services(let done), .services(let message)): done(.success(message))
    case (.services(let done), .failure(let failure)): done(.failure(failure))
    case (.addresses, .services), (.services, .addresses): break
    }
  }
}
