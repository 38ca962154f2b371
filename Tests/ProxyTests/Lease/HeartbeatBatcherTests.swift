import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// Who shares which heartbeat, and what etcd's answers and refusals mean for whom.
@Suite struct HeartbeatBatcherTests {
  #if DEBUG
    private static let standard = 150
  #else
    private static let standard = 3_000
  #endif

  @Test func everyAnswerFollowsAHeartbeatSentForIt() {
    var (merged, answered) = (0, 0)
    for seed in Seeds.run(Self.standard) {
      let model = HeartbeatModel(seed: seed)
      let isCalm = model.random.chance(300)
      for _ in 0..<400 {
        switch model.random.below(100) {
        case 0..<8: model.openStream()
        case 8..<50: model.beat()
        case 50..<54: model.leave()
        case 54..<75: model.answer()
        case 75..<80: model.open()
        case 80 where !isCalm: model.breakOne()
        case 81 where !isCalm: model.endOne()
        default: model.turn()
        }
      }
      model.finish()
      (merged, answered) = (merged + model.merged, answered + model.answered)
      if let failure = model.failures.first {
        Issue.record("\(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
    #expect(merged > 0 && answered > 0)
  }

  @Test func aRequestBehindASentHeartbeatWaitsForTheNext() {
    let bench = HeartbeatBench()
    let (first, second, late) = (bench.join(), bench.join(), bench.join())
    bench.beat(first, 7)
    bench.beat(second, 7)
    bench.settle()
    #expect(bench.upstreams.count == 1)
    #expect(bench.upstreams[0].takeSent() == [7])
    bench.beat(late, 7)
    bench.settle()
    #expect(bench.upstreams[0].takeSent() == [])
    bench.answer(0, 7)
    #expect(bench.takeAnswers() == [first: 1, second: 1])
    #expect(bench.upstreams[0].takeSent() == [7])
    bench.answer(0, 7)
    #expect(bench.takeAnswers() == [late: 1])
  }

  @Test func whatIsNotSentAndNotWaitedForIsNeverSent() {
    let bench = HeartbeatBench(isOpen: false)
    let (gone, here) = (bench.join(), bench.join())
    bench.beat(gone, 1)
    bench.beat(here, 2)
    bench.settle()
    bench.leave(gone)
    bench.settle()
    bench.open(0)
    #expect(bench.upstreams[0].takeSent() == [2])
    // The same for what was sent and is lost.
    bench.leave(here)
    bench.settle()
    bench.batcher.interrupted(bench.upstreams[0].line)
    bench.open(0)
    #expect(bench.upstreams[0].takeSent() == [])
    #expect(bench.batcher.waiting == 0)
  }

  @Test func whatIsUnansweredIsSentAgainInItsOrder() {
    let bench = HeartbeatBench()
    let stream = bench.join()
    for lease: Int64 in [3, 1, 2] { bench.beat(stream, lease) }
    bench.settle()
    #expect(bench.upstreams[0].takeSent() == [3, 1, 2])
    bench.answer(0, 3)
    bench.beat(stream, 9)
    bench.beat(stream, 1)
    bench.settle()
    #expect(bench.upstreams[0].takeSent() == [9])
    bench.batcher.interrupted(bench.upstreams[0].line)
    bench.open(0)
    // The second request for 1 has become part of a heartbeat that is sent after it.
    #expect(bench.upstreams[0].takeSent() == [1, 2, 9])
    bench.answer(0, 1)
    #expect(bench.takeAnswers() == [stream: 3])
  }

  @Test func noLeaderEndsThoseWhoAskedForOne() {
    let bench = HeartbeatBench()
    let (asked, idle, other) = (bench.join(leader: true), bench.join(leader: true), bench.join())
    bench.beat(asked, 1)
    bench.beat(other, 1)
    bench.settle()
    #expect(bench.upstreams.count == 2)
    for index in 0..<2 { bench.end(index, .unavailable, "etcdserver: no leader") }
    #expect(bench.takeEnds() == [asked: .unavailable, idle: .unavailable])
    // The other's heartbeat is asked for again, and goes on with the same call.
    #expect(bench.upstreams.count == 2)
    let quiet = bench.upstreams.first { !$0.line.key.requiresLeader }
    quiet?.isOpen = true
    quiet?.open(bench.batcher)
    #expect(quiet?.takeSent() == [1])
  }

  @Test func theNextTokenIsTriedAndOnlyWhenNoneIsLeftTheirClientsAreTold() {
    let bench = HeartbeatBench()
    let (old, new) = (bench.join(token: [1]), bench.join(token: [2]))
    bench.beat(old, 1)
    bench.settle()
    #expect(bench.upstreams[0].token == [2])
    bench.end(0, .unauthenticated, "etcdserver: invalid auth token")
    #expect(bench.takeEnds() == [:])
    #expect(bench.upstreams.count == 2)
    #expect(bench.upstreams[1].token == [1])
    #expect(bench.upstreams[1].takeSent() == [1])
    bench.answer(1, 1)
    #expect(bench.takeAnswers() == [old: 1])
    // A new client has a better token than the two.
    bench.end(1, .unauthenticated, "etcdserver: invalid auth token")
    #expect(bench.takeEnds() == [old: .unauthenticated, new: .unauthenticated])
    let newest = bench.join(token: [3])
    bench.beat(newest, 1)
    bench.settle()
    #expect(bench.upstreams.count == 3)
    #expect(bench.upstreams[2].token == [3])
  }

  @Test func aRefusedTokenIsTriedAgainWhenItsBettersAreGone() {
    let bench = HeartbeatBench()
    let (better, refused) = (bench.join(token: [1]), bench.join(token: [2]))
    bench.beat(refused, 1)
    bench.settle()
    bench.end(0, .unauthenticated, "etcdserver: invalid auth token")
    #expect(bench.upstreams[1].token == [1])
    bench.leave(better)
    bench.reset(1)
    #expect(bench.upstreams.count == 3)
    #expect(bench.upstreams[2].token == [2])
    bench.end(2, .unauthenticated, "etcdserver: invalid auth token")
    #expect(bench.takeEnds() == [refused: .unauthenticated])
  }

  @Test func manyRefusedTokensAreNotTriedOneAfterTheOther() {
    let bench = HeartbeatBench()
    let streams = (0..<UInt8(40)).map { bench.join(token: [$0]) }
    bench.beat(streams[0], 1)
    bench.settle()
    var told: [Handle: GRPCStatus.Code] = [:]
    for index in 0..<16 {
      bench.end(index, .unauthenticated, "etcdserver: invalid auth token")
      told.merge(bench.takeEnds()) { $1 }
    }
    #expect(Set(told.keys) == Set(streams.suffix(16)))
    // The others go on; a fresh token is the next to be tried.
    let fresh = bench.join(token: [100])
    bench.settle()
    #expect(bench.upstreams.count == 17)
    bench.end(16, .unauthenticated, "etcdserver: invalid auth token")
    #expect(bench.upstreams[17].token == [100])
    bench.answer(17, 1)
    #expect(bench.takeAnswers() == [streams[0]: 1])
    #expect(bench.takeEnds() == [:])
    _ = fresh
  }

  @Test func aRefusedHeartbeatIsThatOfItsClientsOnly() {
    let bench = HeartbeatBench()
    let (fine, bad, alsoBad) = (bench.join(), bench.join(), bench.join())
    bench.beat(fine, 1)
    bench.beat(bad, 2)
    bench.beat(alsoBad, 2)
    bench.beat(fine, 3)
    bench.settle()
    bench.answer(0, 1)
    bench.end(0, .permissionDenied, "etcdserver: permission denied")
    #expect(bench.takeEnds() == [bad: .permissionDenied, alsoBad: .permissionDenied])
    #expect(bench.upstreams.count == 2)
    #expect(bench.upstreams[1].takeSent() == [3])
    bench.answer(1, 3)
    #expect(bench.takeAnswers() == [fine: 2])
  }

  @Test func aHeartbeatThatNoMemberTakesEndsInTheEnd() {
    let bench = HeartbeatBench()
    let (stuck, fine) = (bench.join(), bench.join())
    bench.beat(stuck, 1)
    bench.settle()
    for _ in 0..<Limits.heartbeatTries {
      bench.end(0, .unavailable, "etcdserver: request timed out")
      #expect(bench.takeEnds() == [:])
      bench.open(0)
    }
    bench.end(0, .unavailable, "etcdserver: request timed out")
    #expect(bench.takeEnds() == [stuck: .unavailable])
    bench.open(0)
    bench.beat(fine, 1)
    bench.settle()
    bench.answer(0, 1)
    #expect(bench.takeAnswers() == [fine: 1])
  }

  @Test func aStreamThatNobodyNeedsEndsAfterAWhile() {
    let bench = HeartbeatBench()
    let first = bench.join()
    bench.settle()
    bench.leave(first)
    bench.settle()
    #expect(!bench.upstreams[0].isOver)
    let second = bench.join()
    bench.settle()
    #expect(bench.upstreams.count == 1)
    bench.leave(second)
    bench.settle()
    bench.pass(Limits.heartbeatGrace)
    #expect(bench.upstreams[0].isOver)
    #expect(bench.batcher.isIdle)
  }

  @Test func aStreamThatEndsAgainAndAgainIsNotOpenedAtOnce() {
    let bench = HeartbeatBench()
    _ = bench.join()
    bench.settle()
    bench.reset(0)
    #expect(bench.upstreams.count == 2)
    bench.reset(1)
    #expect(bench.upstreams.count == 2)
    bench.pass(Limits.heartbeatPause)
    #expect(bench.upstreams.count == 3)
  }
}
