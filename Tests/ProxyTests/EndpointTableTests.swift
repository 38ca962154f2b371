import Reactor
import Testing

@testable import Proxy

@Suite struct EndpointTableTests {
  private static func endpoint(_ slot: Int, priority: UInt16 = 0, weight: UInt16 = 0) -> Endpoint {
    Endpoint(
      slot: slot, name: "e\(slot)", addresses: [.v4(0x7F00_0001, port: UInt16(2000 + slot))],
      priority: priority,
      weight: weight)
  }

  private let board = EndpointBoard(cores: 2, slots: 8)

  @Test func takesTurnsOverAllCores() {
    let table = EndpointTable(endpoints: (0..<3).map { Self.endpoint($0) }, balance: .roundRobin)
    let picked = (0..<9).compactMap { _ in table.pick(board, tried: EndpointSet())?.slot }
    #expect(picked == [0, 1, 2, 0, 1, 2, 0, 1, 2])
  }

  @Test func anEndpointThatIsDownIsPassedOverAndTriedLast() {
    let table = EndpointTable(endpoints: (0..<3).map { Self.endpoint($0) }, balance: .roundRobin)
    #expect(board.set(1, .down))
    #expect(!board.set(1, .down), "only the first to notice reports it")
    #expect(Set((0..<6).compactMap { _ in table.pick(board, tried: EndpointSet())?.slot }) == [0, 2])
    _ = board.set(0, .sick)
    #expect(Set((0..<6).compactMap { _ in table.pick(board, tried: EndpointSet())?.slot }) == [2])
    var tried = EndpointSet()
    var order: [Int] = []
    while let next = table.pick(board, tried: tried) {
      order.append(next.slot)
      tried.insert(next.slot)
    }
    #expect(order == [2, 0, 1])
  }

  /// etcd's gateway ignores the priority of endpoints without weight (server/proxy/tcpproxy/userspace.go: pick).
  @Test func aWorsePriorityIsOnlyForWhenTheBetterOneFails() {
    let table = EndpointTable(
      endpoints: [
        Self.endpoint(0, priority: 20), Self.endpoint(1, priority: 10), Self.endpoint(2, priority: 10),
      ],
      balance: .roundRobin)
    #expect(Set((0..<8).compactMap { _ in table.pick(board, tried: EndpointSet())?.slot }) == [1, 2])
    _ = board.set(1, .down)
    _ = board.set(2, .down)
    #expect(table.pick(board, tried: EndpointSet())?.slot == 0)
  }

  @Test func leastConnectionsCountsAllCoresAndWeights() {
    let table = EndpointTable(
      endpoints: [Self.endpoint(0, weight: 3), Self.endpoint(1, weight: 1)], balance: .leastConnections)
    board.add(2, core: 0, slot: 0, .opened)
    board.add(1, core: 1, slot: 1, .opened)
    #expect(table.pick(board, tried: EndpointSet())?.slot == 0)
    board.add(1, core: 1, slot: 1, .closed)
    #expect(table.pick(board, tried: EndpointSet())?.slot == 1)
  }

  @Test func silenceIsCountedFromTheFirstUnansweredBytes() {
    let at = { Instant(nanoseconds: $0) }
    #expect(board.silentSince(slot: 3) == nil)
    board.asked(core: 0, slot: 3, at: at(100))
    board.asked(core: 0, slot: 3, at: at(200))
    #expect(board.silentSince(slot: 3) == at(100))
    board.heard(core: 0, slot: 3, at: at(300))
    #expect(board.silentSince(slot: 3) == nil)
    board.asked(core: 1, slot: 3, at: at(400))
    #expect(board.silentSince(slot: 3) == at(400) && board.lastHeard(slot: 3) == at(300))
  }

  @Test func aSetHoldsEverySlot() {
    for slot in 0..<Limits.endpoints {
      var set = EndpointSet()
      set.insert(slot)
      #expect((0..<Limits.endpoints).filter { set.contains($0) } == [slot])
    }
  }
}
