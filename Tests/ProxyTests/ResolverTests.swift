import Glibc
import Reactor
import Testing

@testable import Proxy

/// A core that has a resolver and nothing else.
private final class ResolverCore: Core {
  static let owner: UInt8 = 5
  var resolver: Resolver?
  var gaveUp = false
  private static let hang = Token(owner: 9, operation: 1, handle: Handle(slot: 0, generation: 0))

  init(_ backend: IOBackend) throws {
    super.init(index: 0, kernel: try backend.makeKernel(buffers: BufferPool(count: 8, size: 256)))
    _ = timers.schedule(at: now + .seconds(30), Self.hang)
  }

  override func complete(_ completion: Completion) {
    if completion.token.owner == Self.owner { resolver?.complete(completion) }
  }

  override func expire(_ token: Token) {
    if token.owner == Self.owner { resolver?.expire(token) }
    if token == Self.hang { (gaveUp, isFinished) = (true, true) }
  }
}

/// How many of the process's sockets talk to a port. Other suites open and close descriptors meanwhile.
private func sockets(to port: UInt16) -> Int {
  (Int32(0)..<1024).count { descriptor in
    var name = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    return withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) }
    } == 0 && UInt16(bigEndian: name.sin_port) == port
  }
}

@Suite(.serialized) struct ResolverTests {
  /// Runs `body` with a resolver that asks `servers`, or a fake server, and returns its core.
  private func onCore(
    _ backend: IOBackend, servers: [String]? = nil, timeout: Instant.Span = .seconds(5),
    _ body: (ResolverCore, Resolver, FakeDNSServer) -> Void
  ) throws {
    let server = FakeDNSServer()
    defer { server.end() }
    let core = try ResolverCore(backend)
    let resolver = try Resolver(
      core: core, owner: ResolverCore.owner, servers: servers ?? ["127.0.0.1:\(server.port)"],
      timeout: timeout,
      attempts: 2)
    core.resolver = resolver
    body(core, resolver, server)
    #expect(!core.gaveUp)
    core.resolver = nil
  }

  private func lookup(
    _ backend: IOBackend, _ host: String, servers: [String]? = nil, timeout: Instant.Span = .seconds(5)
  ) throws -> Result<Resolver.Lookup, Resolver.Failure>? {
    var result: Result<Resolver.Lookup, Resolver.Failure>?
    try onCore(backend, servers: servers, timeout: timeout) { core, resolver, _ in
      resolver.addresses(of: host, port: 2379) { (result, core.isFinished) = ($0, true) }
      core.run()
    }
    return result
  }

  @Test(arguments: IOBackend.allCases) func fourBeforeSixAndTheSmallestTime(_ backend: IOBackend) throws {
    let found = try lookup(backend, "one.test")?.get()
    #expect(found?.addresses.map(\.description) == ["10.0.0.1:2379", "10.0.0.2:2379", "[fd00::1]:2379"])
    #expect(found?.lifetime == .seconds(60))
  }

  @Test(arguments: IOBackend.allCases) func onlySix(_ backend: IOBackend) throws {
    let found = try lookup(backend, "six.test")?.get()
    #expect(found?.addresses.map(\.description) == ["[fd00::1]:2379"])
  }

  @Test(arguments: [("short.test", 1), ("long.test", 300)]) func lifetimeHasBounds(
    _ name: String, _ seconds: UInt64
  ) throws {
    #expect(try lookup(.epoll, name)?.get().lifetime == .seconds(seconds))
  }

  @Test(arguments: IOBackend.allCases) func failuresInWords(_ backend: IOBackend) throws {
    func words(_ host: String, servers: [String]? = nil, timeout: Instant.Span = .seconds(5)) throws -> String
    {
      guard case .failure(let failure)? = try lookup(backend, host, servers: servers, timeout: timeout)
      else { return "found" }
      return failure.description
    }
    #expect(try words("missing.test") == "lookup missing.test: no such host")
    #expect(try words("empty.test") == "lookup empty.test: no such host")
    #expect(try words("broken.test") == "lookup broken.test: server misbehaving")
    #expect(try words("silent.test", timeout: .milliseconds(50)) == "lookup silent.test: i/o timeout")
    #expect(try words("") == "lookup : no such host")
    #expect(try words("one.test\0") == "lookup one.test\0: no such host")
    #expect(try words("one..test") == "lookup one..test: no such host")
    // Nobody listens on a port that was ours until now.
    let gone = FakeDNSServer()
    gone.end()
    #expect(
      try words("one.test", servers: ["127.0.0.1:\(gone.port)"]) == "lookup one.test: connection refused")
  }

  @Test(arguments: IOBackend.allCases) func truncatedComesOverTCP(_ backend: IOBackend) throws {
    var result: Result<Resolver.Lookup, Resolver.Failure>?
    var overTCP = 0
    try onCore(backend) { core, resolver, server in
      resolver.addresses(of: "big.test", port: 1) { (result, core.isFinished) = ($0, true) }
      core.run()
      overTCP = server.tcpQuestions.load(ordering: .relaxed)
    }
    #expect(try result?.get().addresses.count == 60)
    #expect(overTCP >= 1)
  }

  @Test(arguments: IOBackend.allCases) func hostsFile(_ backend: IOBackend) throws {
    var result: Result<Resolver.Lookup, Resolver.Failure>?
    try onCore(backend) { core, resolver, server in
      resolver.addresses(of: "localhost", port: 80) { result = $0 }
      #expect(server.questions.load(ordering: .relaxed) == 0)
    }
    let found = try #require(try result?.get())
    #expect(found.addresses.contains(.v4(0x7F00_0001, port: 80)))
    #expect(found.lifetime == .seconds(30))
  }

  @Test func literalsAnswerAtOnce() throws {
    var found: [Address] = []
    try onCore(.epoll) { _, resolver, _ in
      for host in ["10.1.2.3", "::1", "fe80::1%2"] {
        resolver.addresses(of: host, port: 7) { found += (try? $0.get().addresses) ?? [] }
      }
    }
    #expect(found.map(\.description) == ["10.1.2.3:7", "[::1]:7", "[fe80::1%2]:7"])
  }

  @Test(arguments: IOBackend.allCases) func servicesAreHandedOverUnread(_ backend: IOBackend) throws {
    var results: [Result<[UInt8], Resolver.Failure>] = []
    try onCore(backend) { core, resolver, _ in
      for name in ["_etcd-client._tcp.test", "_none._tcp.test", "missing.test"] {
        resolver.services(of: name) {
          results.append($0)
          core.isFinished = results.count == 3
        }
      }
      core.run()
    }
    let messages = results.compactMap { try? $0.get() }
    #expect(messages.count == 1)
    let record: [UInt8] = [0, 1, 0, 2, 9, 0x4B, 3, 111, 110, 101, 4, 116, 101, 115, 116, 0]
    #expect(messages.first?.suffix(record.count) == record[...])
    let words = results.compactMap { if case .failure(let failure) = $0 { failure.description } else { nil } }
    #expect(Set(words) == ["lookup _none._tcp.test: no such host", "lookup missing.test: no such host"])
  }

  @Test(arguments: IOBackend.allCases) func manyAtOnceAndEveryDescriptorGivenBack(_ backend: IOBackend) throws
  {
    var (port, during): (UInt16, Int) = (0, 0)
    var found: [UInt8: String] = [:]
    var again = 0
    try onCore(backend) { core, resolver, server in
      port = server.port
      for number in UInt8(0)..<100 {
        resolver.addresses(of: "n\(number).test", port: 1) { result in
          found[number] = (try? result.get())?.addresses.first?.host
          // A lookup from inside an answer.
          resolver.addresses(of: "n\(number + 100).test", port: 1) { result in
            again += (try? result.get())?.addresses.first?.host == "10.2.0.\(number + 100)" ? 1 : 0
            core.isFinished = again == 100
          }
        }
      }
      during = sockets(to: port)
      core.run()
    }
    #expect(found.count == 100 && found.allSatisfy { $0.value == "10.2.0.\($0.key)" })
    #expect(again == 100)
    #expect(during > 0 && sockets(to: port) == 0)
  }

  @Test func atMostSoManyAtOnce() throws {
    var refused: [Resolver.Reason] = []
    try onCore(.epoll) { _, resolver, _ in
      for number in 0...Resolver.lookupsAtOnce {
        resolver.addresses(of: "silent\(number).test", port: 1) {
          if case .failure(let failure) = $0 { refused.append(failure.reason) }
        }
      }
    }
    #expect(refused == [.tooMany])
  }

  @Test(arguments: IOBackend.allCases) func releaseDropsLookupsAndTheNextResolverIsUndisturbed(
    _ backend: IOBackend
  ) throws {
    let server = FakeDNSServer()
    defer { server.end() }
    let core = try ResolverCore(backend)
    let servers = ["127.0.0.1:\(server.port)"]
    var calls = 0
    do {
      let first = try Resolver(core: core, owner: ResolverCore.owner, servers: servers)
      core.resolver = first
      first.addresses(of: "silent.test", port: 1) { _ in calls += 1 }
      core.resolver = nil
    }
    #expect(core.timers.count == 1)
    let second = try Resolver(core: core, owner: ResolverCore.owner, servers: servers)
    core.resolver = second
    var found: [Address] = []
    second.addresses(of: "one.test", port: 1) { result in
      (found, core.isFinished) = ((try? result.get().addresses) ?? [], true)
    }
    core.run()
    #expect(found.count == 3)
    #expect(calls == 0 && !core.gaveUp)
  }

  @Test func serversMustBeAddresses() throws {
    let core = try ResolverCore(.epoll)
    for text in ["localhost:53", "127.0.0.1:0", "127.0.0.1:70000", "[::1", "fe80::1%2", ""] {
      #expect(throws: Resolver.Unusable.self) {
        try Resolver(core: core, owner: ResolverCore.owner, servers: [text])
      }
    }
    for text in ["127.0.0.1", "::1", "[::1]:53", "127.0.0.1:5353"] {
      _ = try Resolver(core: core, owner: ResolverCore.owner, servers: [text])
    }
    _ = try Resolver(core: core, owner: ResolverCore.owner, servers: [])
  }
}
