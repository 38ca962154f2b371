import Glibc
import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// How many seeds a simulation runs: `RINGWAY_SEEDS` of them, or `RINGWAY_SEED` alone.
enum Seeds {
  static func run(_ standard: Int, from first: UInt64 = 1) -> [UInt64] {
    if let one = number("RINGWAY_SEED") { return [one] }
    let count = asked ?? standard
    return (0..<UInt64(count)).map { first &+ $0 }
  }

  /// How many seeds the environment wants; storms of random bytes have a hundred inputs for each at most.
  static var asked: Int? { number("RINGWAY_SEEDS").map { Int(clamping: $0) } }

  private static func number(_ variable: String) -> UInt64? {
    guard let text = getenv(variable) else { return nil }
    return UInt64(String(cString: text))
  }
}

/// Pumps under every order of events that a kernel and two peers can bring.
@Suite struct PumpSimulationTests {
  @Test func deliversEverythingInAnyOrderOfEvents() {
    for seed in Seeds.run(4_000) {
      if let failure = Self.failure(seed) {
        Issue.record("\(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
  }

  /// Runs one world of one or two pumps that share buffers and pipes.
  static func failure(_ seed: UInt64) -> String? {
    var random = SimRandom(seed: seed)
    let shape = random.pick([(4, 4096), (4, 64), (16, 512), (32, 4096), (128, 64), (128, 4096)])
    let kernel = PumpKernel(
      buffers: BufferPool(count: shape.0, size: shape.1),
      pipeCapacity: random.pick([4096, 65_536, 262_144]), pipesLeft: random.pick([0, 1, 100]))
    var pipes = PipePool()
    let channels = (0..<1 + UInt64(random.below(2))).map {
      PumpChannel(kernel, name: seed &* 2 &+ $0, &random)
    }
    var events: [(PumpChannel, PumpChannel.Event)] = []
    var some: [PumpChannel.Event] = []
    for _ in 0..<200_000 {
      events.removeAll(keepingCapacity: true)
      for channel in channels {
        channel.act(&pipes, &random)
        if let failure = channel.failure { return failure }
        some.removeAll(keepingCapacity: true)
        channel.possible(&some)
        for event in some { events.append((channel, event)) }
      }
      if channels.allSatisfy(\.isFinished) { return leftover(channels, kernel, &pipes) }
      // A core does not sleep on the buffers of sends that went out.
      let isLow = kernel.buffers.held > kernel.buffers.count / 2
      if isLow {
        for channel in channels where channel.awaitsWake { events.append((channel, .deferredSent)) }
      }
      guard !events.isEmpty else { return "stuck: \(channels.map(\.state))" }
      let (channel, event) = random.pick(events)
      // What a turn brings comes in any order.
      let isLater = random.chance(500)
      if isLater { channel.happen(event, &random) }
      if wakes(event) { for other in channels { other.wake(&random) } }
      if !isLater { channel.happen(event, &random) }
    }
    return "endless"
  }

  /// The events that wake a sleeping core; the others happen in its peers.
  private static func wakes(_ event: PumpChannel.Event) -> Bool {
    switch event {
    case .produce, .endSource, .makeRoom, .sent: false
    default: true
    }
  }

  private static func leftover(
    _ channels: [PumpChannel], _ kernel: PumpKernel, _ pipes: inout PipePool
  ) -> String? {
    for channel in channels {
      if channel.pump.hasBytes { return "an ended pump keeps bytes" }
      if channel.pump.outcome == .ended, channel.delivered != channel.total { return "ended early" }
    }
    pipes.closeAll(kernel)
    if pipes.made != 0 || !kernel.pipes.isEmpty { return "pipes were lost" }
    if kernel.buffers.held != 0 || kernel.free.count != kernel.buffers.count { return "buffers were lost" }
    return kernel.complaints.first
  }
}
