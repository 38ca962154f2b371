import Reactor
import Testing

@testable import Proxy

/// Messages from core to core, more of them than their way holds.
@Suite struct CoreOutboxTests {
  @Test func allArriveInOrderAndWhoeverStillHasSomeIsWokenAgain() throws {
    let post = CorePost(cores: 2)
    var outbox = CoreOutbox(cores: 2)
    let box = post.box(from: 0, to: 1)
    let count = UInt32(box.capacity) * 3 + 7
    for number in 0..<count {
      outbox.send(.watch(.unsubscribe(group: number, mayComeBack: false)), from: 0, to: 1, post)
    }
    var arrived: [UInt32] = []
    var woken: [Int] = []
    for _ in 0..<10 {
      woken = []
      outbox.flush(from: 0, post) { woken.append($0) }
      let isAll = arrived.count + box.capacity >= Int(count)
      if woken.isEmpty { break }
      #expect(woken == (isAll ? [1] : [1, 0]))
      while let mail = box.pop() {
        guard case .watch(.unsubscribe(let number, _)) = mail else { continue }
        arrived.append(number)
      }
    }
    #expect(arrived == Array(0..<count))
    #expect(woken.isEmpty)
  }
}
