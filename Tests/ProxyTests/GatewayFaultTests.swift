import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// The gateway under one fault at a time.
@Suite struct GatewayFaultTests {
  private static let second: UInt64 = 1_000_000_000

  private func world(
    _ shape: GatewayWorld.Shape = .init(), _ options: GatewayOptions = .init(),
    _ server: ScriptedPeer.Plan = .init(total: 100, waitsForEnd: true)
  ) -> GatewayWorld { GatewayWorld(seed: 7, shape, options) { server } }

  private func finish(_ world: GatewayWorld) {
    world.finish()
    #expect(world.failures == [])
  }

  @Test func drainWithoutConnectionsClosesTheListener() {
    let world = world()
    world.run(for: Self.second)
    world.drain(within: .seconds(5))
    world.run(for: Self.second)
    #expect(world.isOver)
    #expect(world.network.openDescriptors == 0)
    finish(world)
  }

  /// Linux reports a reset once. If a send got to know it, the receive on the same socket only reads "end".
  @Test func resetFoundBySendingIsNoEndOfTheAnswer() {
    for seed in 1...40 as ClosedRange<UInt64> {
      let world = GatewayWorld(seed: seed) {
        .init(total: 1_000_000, chunk: 3_000, pause: 300_000, resetsAt: 30_000)
      }
      world.addClient(.init(total: 1_000_000, chunk: 500, pause: 100_000))
      world.run(for: 10 * Self.second) { world.clients.first?.isDone == true }
      #expect(world.clients[0].sawCleanEnd == false, "seed \(seed)")
      finish(world)
    }
  }

  /// A send can fail for want of memory while both peers are well: they have to hear of it.
  @Test func failedSendEndsBothSides() {
    let world = world(.init(), .init(), .init(echoes: true, waitsForEnd: true))
    world.addClient(.init(total: 50, wants: 50))
    world.run(for: Self.second / 10) { world.kernels[0].calls.connects > 0 }
    world.kernels[0].faults.nextSend = ENOMEM
    world.run(for: 10 * Self.second) { world.peers.values.allSatisfy(\.isDone) }
    #expect(world.clients[0].isDone)
    #expect(world.clients[0].sawCleanEnd == false)
    finish(world)
  }

  /// Out of descriptors: clients wait in the kernel's queue, and accept is asked for ten times a second at most.
  @Test func lackOfDescriptorsPausesAccepting() {
    let world = world(.init(), .init(), .init(echoes: true, waitsForEnd: true))
    // The listener and two connections of two sockets.
    world.network.descriptorLimit = 3 + 1 + 4
    for _ in 0..<6 { world.addClient(.init(total: 50, speaksAfter: 2 * Self.second, wants: 50)) }
    world.run(for: 2 * Self.second)
    let calls = world.kernels[0].calls
    // One by one while descriptors are short, and only after a socket for the endpoint was to be had.
    #expect(calls.sockets > 10 && calls.sockets < 60)
    #expect(calls.turns < 300)
    world.run(for: 20 * Self.second) { world.clients.count == 6 && world.clients.allSatisfy(\.isDone) }
    #expect(world.shared.counters.sum(.acceptPauses) > 0)
    #expect(world.shared.counters.sum(.accepted) == 6)
    finish(world)
  }

  /// Four buffers among twenty connections: all starve again and again, and all get on.
  @Test func lackOfBuffersDelaysButNeverStops() {
    let world = GatewayWorld(seed: 11, .init(buffers: (count: 4, size: 512))) {
      .init(echoes: true, waitsForEnd: true)
    }
    for _ in 0..<20 { world.addClient(.init(total: 20_000)) }
    world.run(for: 60 * Self.second) { world.peers.count == 40 && world.peers.values.allSatisfy(\.isDone) }
    #expect(world.kernels[0].calls.starvations > 0)
    for client in world.clients { #expect(client.received == 20_000) }
    finish(world)
  }

  /// Without pipes a direction that streams goes on by copying.
  @Test(arguments: [false, true]) func streamsWithAndWithoutPipes(_ noPipes: Bool) {
    let world = world(.init(), .init(), .init(total: 2_000_000, chunk: 60_000, waitsForEnd: true))
    world.kernels[0].faults.noPipes = noPipes
    world.addClient(.init(total: 50))
    world.run(for: 60 * Self.second) { world.peers.count == 2 && world.peers.values.allSatisfy(\.isDone) }
    #expect(world.clients[0].received == 2_000_000)
    #expect((world.kernels[0].calls.splices > 100) == !noPipes)
    finish(world)
  }

  /// A client that never reads costs at most the receive buffers' size in memory and a pipe; others feel nothing.
  @Test func stuckClientHoldsLittleAndStopsNobody() {
    let world = world(.init(), .init(), .init(total: 3_000_000, chunk: 60_000, waitsForEnd: true))
    world.addClient(.init(total: 50, readsAfter: 100 * Self.second))
    world.addClient(.init(total: 50))
    var most = 0
    let core = world.cores[0]
    world.run(for: 60 * Self.second) {
      core.sessions.forEach { _, session in most = max(most, session.down.backlog.count + session.down.piped)
      }
      return world.clients.last?.isDone == true && world.network.clock > 20 * Self.second
    }
    #expect(world.clients[1].received == 3_000_000)
    #expect(most > 0)
    #expect(most <= 64 * 4096 + Int(Limits.pipeCapacity))
    #expect(world.kernels[0].buffers.held == 0)
    finish(world)
  }

  /// Ending a connection that waits for its reader must not look like the end of the answer.
  @Test(arguments: [true, false]) func cutByTheGatewayLooksCut(_ byDrain: Bool) {
    var options = GatewayOptions()
    if !byDrain { options.idleTimeout = .seconds(1) }
    let world = world(.init(), options, .init(total: 400_000, chunk: 60_000))
    world.addClient(.init(total: 50, readsAfter: 20 * Self.second))
    world.run(for: byDrain ? Self.second : 10 * Self.second)
    if byDrain { world.drain(within: .seconds(1)) }
    world.run(for: 30 * Self.second)
    while world.clients[0].isDone == false, world.network.step(until: world.network.clock + 30 * Self.second)
    {}
    #expect(world.clients[0].received < 400_000)
    #expect(world.clients[0].sawCleanEnd == false)
    finish(world)
  }

  /// A PROXY header in both directions, cut at every place.
  @Test(arguments: [GatewayOptions.ProxyProtocolOut.v1, .v2]) func proxyHeaderComesInPieces(
    _ out: GatewayOptions.ProxyProtocolOut
  ) {
    var options = GatewayOptions()
    options.proxyProtocolIn = .on
    options.proxyProtocolOut = out
    let (from, to) = (Address.v4(0x0102_0304, port: 77), Address.v4(0x0506_0708, port: 88))
    for header in [
      ProxyProtocol.line(source: from, destination: to), ProxyProtocol.block(source: from, destination: to),
    ] {
      for chunk in 1...header.count {
        let world = world(.init(), options, .init(echoes: true, waitsForEnd: true))
        // Little room towards the endpoint: the header leaves in pieces too.
        world.capacity = chunk + 3
        world.addClient(.init(total: 90, chunk: chunk, pause: 3_000_000), prologue: header)
        world.run(for: 30 * Self.second) { world.peers.count == 2 && world.peers.values.allSatisfy(\.isDone) }
        #expect(world.clients[0].received == 90, "pieces of \(chunk)")
        #expect(world.clients[0].partner?.announced == from)
        finish(world)
      }
    }
  }

  /// Bad endpoints cost a client a race delay each, not its connection.
  @Test(arguments: [SimNetwork.Host.refusing, .blackHole, .unreachable]) func oneGoodEndpointIsFound(
    _ host: SimNetwork.Host
  ) {
    let world = world(.init(endpoints: 4), .init(), .init(echoes: true, waitsForEnd: true))
    for endpoint in world.endpoints.dropLast() { endpoint.down(as: host) }
    for _ in 0..<5 { world.addClient(.init(total: 50, wants: 50)) }
    let begin = world.network.clock
    world.run(for: 10 * Self.second) { world.clients.count == 5 && world.clients.allSatisfy(\.isDone) }
    #expect(world.clients.allSatisfy { $0.received == 50 })
    let limit: UInt64 = host == .refusing ? 100_000_000 : 3 * 250_000_000 + 2 * Self.second
    #expect(world.network.clock - begin < limit)
    finish(world)
  }

  @Test func nothingToConnectToResetsTheClient() {
    let world = world()
    world.endpoints[0].down(as: .refusing)
    world.addClient(.init(total: 50))
    world.run(for: Self.second) { world.clients.first?.isDone == true }
    #expect(world.clients[0].endRead == -Int(ECONNRESET))
    #expect(world.shared.counters.sum(.noEndpoint) == 1)
    finish(world)
  }

  /// A want of descriptors while connecting is waited out, and ends the session once it has lasted too long.
  @Test func lackOfDescriptorsWhileConnectingIsSaidOnce() {
    let world = world(.init(endpoints: 3))
    for endpoint in world.endpoints { endpoint.down(as: .refusing) }
    world.network.descriptorLimit = 3 + 1 + 1
    world.addClient(.init(total: 50))
    world.run(for: Self.second)
    #expect(world.shared.counters.sum(.ended(.noDescriptor)) == 0)
    world.run(for: 4 * Self.second) { world.clients.first?.isDone == true }
    #expect(world.shared.counters.sum(.ended(.noDescriptor)) == 1)
    #expect(world.shared.counters.sum(.noEndpoint) == 0)
    finish(world)
  }

  @Test func hungEndpointLosesItsConnections() {
    let world = world(.init(), .init(), .init(echoes: true, waitsForEnd: true))
    world.addClient(.init(total: 50, halfCloses: false, wants: 1_000))
    world.run(for: Self.second)
    world.endpoints[0].isStopped = true
    world.tell(.endpointHung(0))
    world.run(for: Self.second) { world.clients.first?.isDone == true }
    #expect(world.clients[0].isDone)
    #expect(world.clients[0].sawCleanEnd == false)
    #expect(world.shared.counters.sum(.ended(.endpointHung)) == 1)
    finish(world)
  }

  @Test func clientsBeyondTheLimitAreReset() {
    let world = world(.init(connectionLimit: 2), .init(), .init(echoes: true, waitsForEnd: true))
    for place in 0..<3 {
      world.addClient(after: UInt64(place) * 1_000_000, .init(total: 50, halfCloses: false, wants: 1_000))
    }
    world.run(for: Self.second)
    #expect(world.clients.map(\.isDone) == [false, false, true])
    #expect(world.shared.counters.sum(.refused) == 1)
    finish(world)
  }

  /// The second address of an endpoint finds no descriptor: it is tried a moment later, before any other endpoint.
  @Test func lackOfDescriptorsBetweenTwoAddressesIsWaitedOut() {
    let world = world(.init(endpoints: 2))
    for endpoint in world.endpoints { endpoint.down(as: .blackHole) }
    world.endpoints[0].down(as: .refusing)
    let both = [GatewayWorld.address(of: 0), GatewayWorld.address(of: 9)]
    let endpoints = [
      Endpoint(slot: 0, name: "two", addresses: both, priority: 0, weight: 1),
      Endpoint(slot: 1, name: "one", addresses: [GatewayWorld.address(of: 1)], priority: 1, weight: 1),
    ]
    world.tell(.table(EndpointTable(endpoints: endpoints, balance: .roundRobin)))
    world.run(for: Self.second)
    world.addClient(.init(total: 50))
    world.run(for: Self.second) { world.kernels[0].calls.connects == 1 }
    world.kernels[0].faults.nextSocket = EMFILE
    world.run(for: Self.second) { world.kernels[0].calls.connects == 2 }
    #expect(world.kernels[0].calls.connects == 2)
    #expect(world.shared.counters.sum(.ended(.noDescriptor)) == 0)
    #expect(world.shared.counters.sum(.noEndpoint) == 0)
    finish(world)
  }
}
