import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// The table of leases, and the order of a stream's answers, against the obvious way to do it.
@Suite struct LeaseTableTests {
  @Test func aTableIsADictionary() {
    for seed in Seeds.run(50) {
      var random = SimRandom(seed: seed)
      var table = LeaseTable(seed: seed)
      var model: [Int64: UInt32] = [:]
      // Few leases, so that they are met again; some of the extremes.
      let leases = (0..<random.size(upTo: 200)).map { _ in
        random.pick([0, -1, .min, .max, Int64(random.below(50)), Int64(bitPattern: random.next())])
      }
      for _ in 0..<2_000 {
        let lease = random.pick(leases)
        #expect(table.find(lease) == model[lease], "seed \(seed)")
        if model[lease] == nil {
          let place = UInt32(random.below(1_000))
          table.insert(lease, place)
          model[lease] = place
        } else if random.chance(700) {
          table.remove(lease)
          model[lease] = nil
        }
        #expect(table.count == model.count, "seed \(seed)")
      }
      for lease in leases { #expect(table.find(lease) == model[lease], "seed \(seed)") }
    }
  }

  @Test func answersLeaveInTheOrderOfTheRequests() {
    for seed in Seeds.run(50) {
      var random = SimRandom(seed: seed)
      let pool = BlockPool()
      var order = HeartbeatOrder()
      var output = ByteBuffer(pool)
      var open: [UInt32] = []
      var (asked, passed) = (0, 0)
      for _ in 0..<2_000 {
        if open.isEmpty || open.count < 40 && random.chance(500) {
          open.append(order.ask())
          asked += 1
        } else {
          let sequence = open.remove(at: random.below(open.count))
          passed += order.answer(sequence, heartbeatAnswer(1, Int64(sequence), pool), to: &output)
          // One that is answered already is not answered again.
          #expect(order.answer(sequence, heartbeatAnswer(1, 0, pool), to: &output) == 0, "seed \(seed)")
        }
        #expect(order.count == asked - passed, "seed \(seed)")
      }
      for sequence in open.shuffled(using: &random) {
        passed += order.answer(sequence, heartbeatAnswer(1, Int64(sequence), pool), to: &output)
      }
      #expect(passed == asked)
      #expect(heartbeatAnswers(output).map(\.seconds) == (0..<Int64(asked)).map { $0 }, "seed \(seed)")
    }
  }

  @Test func anAnswerKeepsEtcdsBytesWhileTheyFit() {
    let pool = BlockPool()
    for extra in [0, 20, 200] {
      var message = ByteBuffer(pool)
      let known = LeaseKeepAliveResponse(
        header: ResponseHeader(clusterID: .max, memberID: .max, revision: .max, raftTerm: .max), id: -1,
        seconds: extra == 20 ? 7 : -1)
      if extra == 20 {
        LeaseKeepAliveResponse(header: ResponseHeader(), id: -1, seconds: 7).encode(into: &message)
      } else {
        known.encode(into: &message)
      }
      let length = message.count
      message.appendField(99, Array(repeating: UInt8(7), count: extra))
      guard let decoded = try? LeaseKeepAliveResponse(message.bytes) else {
        Issue.record("the message cannot be read")
        continue
      }
      let answer = HeartbeatAnswer(message.bytes, decoded, pool)
      var output = ByteBuffer(pool)
      answer.append(to: &output)
      let kept = extra == 200 ? length : message.count
      #expect(Array(output.bytes.dropFirst(5)) == Array(message.bytes.prefix(kept)))
      #expect(Array(output.bytes.prefix(5)) == [0, 0, 0, 0, UInt8(kept)])
    }
  }
}

/// An answer of etcd's.
func heartbeatAnswer(_ lease: Int64, _ seconds: Int64, _ pool: BlockPool) -> HeartbeatAnswer {
  var message = ByteBuffer(pool)
  let decoded = LeaseKeepAliveResponse(header: ResponseHeader(revision: 1), id: lease, seconds: seconds)
  decoded.encode(into: &message)
  return HeartbeatAnswer(message.bytes, decoded, pool)
}

/// The answers in what goes to a client.
func heartbeatAnswers(_ output: borrowing ByteBuffer) -> [LeaseKeepAliveResponse] {
  var answers: [LeaseKeepAliveResponse] = []
  var rest = output.bytes
  while let length = GRPCMessage.complete(rest) {
    let message = UnsafeRawBufferPointer(rebasing: rest[GRPCMessage.prefix..<length])
    if let answer = try? LeaseKeepAliveResponse(message) { answers.append(answer) }
    rest = UnsafeRawBufferPointer(rebasing: rest[length...])
  }
  return answers
}
