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
      let world = GatewayWorld(seed: seed) { .init(total: 1_000_000, chunk: 3_000, pause: 300_000, resetsAt: 30_000) }
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
}
