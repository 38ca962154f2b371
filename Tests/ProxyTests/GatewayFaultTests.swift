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
}
