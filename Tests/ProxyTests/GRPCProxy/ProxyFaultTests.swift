import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// Single faults that a call must survive, or must hear of.
@Suite struct ProxyFaultTests {
  private static let second: UInt64 = 1_000_000_000

  private func call(_ id: Int, _ shape: ProxyCall.Shape) -> ProxyCall {
    ProxyCall(id: id, shape: shape, requestSize: 20, answerSize: 30, messages: 1)
  }

  /// A call that etcd has and does not answer.
  private func worldWithHungCall(_ shape: ProxyCall.Shape) -> (ProxyWorld, ProxyCall) {
    let world = ProxyWorld(seed: 1, endpoints: 1)
    let hung = call(1, shape)
    world.endpoints[0].isSilent = true
    world.addClient(after: 0, [hung], atOnce: 1)
    world.run(for: Self.second)
    return (world, hung)
  }

  @Test func callsOfAClientThatBreaksHTTP2AreTakenBackFromEtcd() {
    let (world, _) = worldWithHungCall(.watch)
    #expect(world.core.calls.count == 1)
    #expect(world.endpoints[0].openStreams == 1)
    world.clients[0].breakHTTP2()
    world.run(for: Self.second)
    #expect(world.core.calls.count == 0)
    #expect(world.core.clients.count == 0)
    #expect(world.endpoints[0].openStreams == 0)
    world.finish()
    #expect(world.failures == [])
  }

  @Test func callsHearOfAnEtcdThatBreaksHTTP2() {
    let (world, hung) = worldWithHungCall(.write)
    world.endpoints[0].breakHTTP2()
    world.run(for: Self.second)
    #expect(hung.status == "14")
    #expect(world.core.calls.count == 0)
    world.finish()
    #expect(world.failures == [])
  }

  @Test func aLoneReadIsMadeAgainAtTheOnlyEndpoint() {
    let (world, hung) = worldWithHungCall(.watch)
    world.endpoints[0].down()
    world.endpoints[0].up()
    world.endpoints[0].isSilent = false
    world.run(for: Self.second)
    #expect(hung.status == "0")
    world.finish()
    #expect(world.failures == [])
  }

  @Test func aCallInTheMiddleOfABackoffIsNotForgotten() {
    let world = ProxyWorld(seed: 1, endpoints: 1)
    world.endpoints[0].down()
    let (first, second) = (call(1, .unknown), call(2, .read))
    world.addClient(after: 0, [first], atOnce: 1)
    // The first fails at once and leaves a backoff behind; nobody else waits when the second comes.
    world.run(for: Self.second) { first.ends > 0 }
    world.run(for: Self.second) { world.core.retryTimer == .none }
    world.core.connectFailed(ProxyWorld.table([0]).endpoints[0], SystemError(code: ECONNREFUSED))
    world.core.wantsRetry = false
    world.addClient(after: 0, [second], atOnce: 1)
    world.run(for: 20_000_000)
    world.endpoints[0].up()
    world.run(for: 5 * Self.second) { second.ends > 0 }
    #expect(second.status == "0")
    world.finish()
    #expect(world.failures == [])
  }

  @Test func anAnswerBeforeTheRequestsEndLeavesNothingOpen() {
    let world = ProxyWorld(seed: 1, endpoints: 1)
    world.endpoints[0].only = .failsAtOnce
    world.endpoints[0].window = 1_000
    let large = ProxyCall(id: 1, shape: .write, requestSize: 100_000, answerSize: 5, messages: 1)
    world.addClient(after: 0, [large], atOnce: 1)
    world.run(for: Self.second) { large.ends > 0 }
    world.run(for: Self.second)
    #expect(large.status == "14")
    var left = 0
    world.core.upstreams.forEach { _, connection in left += connection.transport.http2.openStreams }
    #expect(left == 0)
    world.finish()
    #expect(world.failures == [])
  }

  @Test func aNamespaceLeavesTheMemberListToTheProxies() {
    var options = GRPCProxyOptions()
    options.namespace = "a/"
    // From the first call on: the proxy knows of itself before anybody has told it of others.
    #expect(rewritesMemberList(options))
    options.advertiseURL = ""
    #expect(!rewritesMemberList(options))
  }

  private func rewritesMemberList(_ options: GRPCProxyOptions) -> Bool {
    let world = ProxyWorld(seed: 1, endpoints: 1, options)
    defer { world.finish() }
    return world.core.rewrites(.memberList)
  }

  @Test func aPageComesBehindAnEndOfRequests() {
    let world = ProxyWorld(seed: 1, endpoints: 1)
    let socket = world.network.makeSocket(capacity: 65_536)
    world.network.connect(socket, from: .v4(0x0A01_0001, port: 1), to: ProxyWorld.proxy) { _ in
      _ = socket.send(Array("GET /proxy/health HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
      socket.halfClose()
    }
    world.run(for: Self.second / 10)
    guard let request = world.shared.pageRequests[0].pop() else {
      Issue.record("nobody asked for the page")
      return
    }
    let page = AdminServer.Page(status: 200, contentType: "text/plain", body: Array("fine".utf8))
    world.tell(
      .page(PageReply(request, page)))
    world.run(for: Self.second)
    let answer = String(decoding: socket.receive(60_000).bytes, as: UTF8.self)
    #expect(answer.hasSuffix("fine"))
    #expect(world.core.clients.count == 0)
    world.finish()
    #expect(world.failures == [])
  }
}
