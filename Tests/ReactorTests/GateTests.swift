import Reactor
import Testing

@Suite struct GateTests {
  @Test func drainsWhenTheLastOneLeaves() {
    var gate = Gate()
    var entered = [gate.enter(), gate.enter()]
    var drained = [gate.isDrained]
    gate.leave()
    drained.append(gate.isDrained)
    gate.close()
    gate.close()
    drained.append(gate.isDrained)
    entered.append(gate.enter())
    gate.leave()
    drained.append(gate.isDrained)
    let closed = gate.isClosed
    #expect(entered == [true, true, false])
    #expect(drained == [false, false, false, true])
    #expect(closed)
  }

  @Test func anOpenGateIsNotDrained() {
    let gate = Gate()
    let states = [gate.isClosed, gate.isDrained]
    #expect(states == [false, false])
  }

  @Test func leavingTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      var gate = Gate()
      _ = gate.enter()
      gate.leave()
      gate.leave()
    }
  }

  @Test func destroyingWithSomebodyInsideTraps() async {
    await #expect(processExitsWith: .failure) {
      var gate = Gate()
      _ = gate.enter()
      gate.close()
    }
  }
}
