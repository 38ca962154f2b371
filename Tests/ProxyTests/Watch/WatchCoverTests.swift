import Reactor
import Simulation
import Testing

@testable import Proxy

/// Which watches a cover has as lanes, and what of its blocks each gets: held against a look through all of them.
@Suite struct WatchCoverTests {
  private static let header = ResponseHeader(clusterID: 3, memberID: 5, revision: 90, raftTerm: 2)

  private func range(_ key: String, _ end: String = "") -> WatchRange {
    WatchRange(key: Array(key.utf8), end: Array(end.utf8))
  }

  private func group(_ id: UInt32, _ range: WatchRange) -> HomeGroup {
    let key = GroupKey(range: range, principal: .nobody, requiresLeader: false)
    let wish = WatchSubscription(key: key, ticket: 0, token: [], wantsPrevious: false, start: 0)
    return HomeGroup(id, wish, cores: 1, now: Instant(nanoseconds: 0), BlockPool())
  }

  private func event(_ key: [UInt8], _ revision: UInt64) -> [UInt8] {
    Wire.field(11, Wire.field(2, Wire.field(1, key) + Wire.field(3, number: revision)))
  }

  private func block(_ keys: [[UInt8]], from revision: UInt64 = 1) throws -> WatchBlock {
    let fields = keys.enumerated().flatMap { event($1, revision + UInt64($0)) }
    return try #require(
      fields.withUnsafeBytes { WatchBlock($0, header: Self.header, hasPrevious: false) })
  }

  private func keys(_ block: WatchBlock) -> [[UInt8]] {
    var found: [[UInt8]] = []
    block.forEachEvent { key, _ in found.append(Array(key)) }
    return found
  }

  // MARK: Prefixes

  @Test func whatLiesInAPrefixIsCovered() {
    let covers = CoveredPrefixes(["a/", "a/b/"], namespace: [])
    let (outer, inner) = (range("a/", "a0"), range("a/b/", "a/b0"))
    for each in [range("a/"), range("a/x"), range("a/", "a0"), range("a/b", "a/c"), range("a/x", "a/x\0")] {
      #expect(covers.cover(of: each) == outer, "\(each)")
    }
    for each in [range("a/b/"), range("a/b/x", "a/b/y"), range("a/b/", "a/b0")] {
      #expect(covers.cover(of: each) == inner, "\(each)")
    }
    for each in [range("a"), range("a0"), range("a", "a0"), range("a/", "a1"), range("a/", "\0"), range("b")]
    {
      #expect(covers.cover(of: each) == nil, "\(each)")
    }
    #expect(CoveredPrefixes([], namespace: []).cover(of: range("a")) == nil)
  }

  @Test func allOfAPrefixLivesOnOneCore() {
    let covers = CoveredPrefixes(["a/"], namespace: [])
    let homes = Set((0..<100).map { covers.home(of: range("a/\($0)", $0 % 2 == 0 ? "" : "a/~"), among: 16) })
    #expect(homes == [covers.home(of: range("a/", "a0"), among: 16)])
    #expect(Set((0..<100).map { covers.home(of: range("b/\($0)"), among: 16) }).count > 8)
  }

  @Test func keysAreAsClientsKnowThem() {
    let covers = CoveredPrefixes(["a/"], namespace: Array("ns/".utf8))
    #expect(covers.cover(of: range("a/x")) == nil)
    #expect(covers.cover(of: range("ns/a/x")) == range("ns/a/", "ns/a0"))
    #expect(covers.span(of: range("ns/a/x")) == KeySpan(.single, Array("a/x".utf8), []))
    #expect(
      covers.span(of: range("ns/a/x", "ns/a/y")) == KeySpan(.bounded, Array("a/x".utf8), Array("a/y".utf8)))
    #expect(covers.span(of: range("ns/a/x", "ns0")) == KeySpan(.open, Array("a/x".utf8), []))
    #expect(CoveredPrefixes([], namespace: []).span(of: range("a", "\0")) == KeySpan(.open, [0x61], []))
  }

  // MARK: Distribution

  @Test func everyLaneGetsWhatAWatchOfItsOwnWould() throws {
    for seed in Seeds.run(50) {
      var random = SimRandom(seed: seed)
      var cover = WatchCover(seed: seed, now: Instant(nanoseconds: 0))
      let covering = group(0, range("", "\0"))
      var groups: [HomeGroup] = []
      let letters: [UInt8] = [0, 1, 0x61, 0x62, 0xFF]
      func someKey() -> [UInt8] { (0..<(1 + random.below(3))).map { _ in random.pick(letters) } }
      for step in 1...200 {
        if random.chance(300), !groups.isEmpty {
          let gone = groups.remove(at: random.below(groups.count))
          if let lane = gone.lane { cover.remove(lane) }
        } else if groups.count < 60 {
          let key = someKey()
          let made = WatchRange(key: key, end: random.pick([[], [], [0], someKey(), key + [0]]))
          guard !made.isEmpty, !groups.contains(where: { $0.key.range == made }) else { continue }
          let group = group(UInt32(step), made)
          let lane = WatchLane(group, of: covering, CoveredPrefixes([], namespace: []).span(of: made))
          group.lane = lane
          cover.insert(lane)
          groups.append(group)
        }
        #expect(Set(cover.lanes.map(\.rank)) == Set(groups.map(\.id)))
        let changed = (0..<(1 + random.below(5))).map { _ in someKey() }
        let block = try block(changed)
        var given: [UInt32: WatchBlock] = [:]
        let unwanted = cover.distribute(block) { group, part in
          #expect(given.updateValue(part, forKey: group.id) == nil)
        }
        for group in groups {
          let range = group.key.range
          let expected = changed.filter { key in key.withUnsafeBytes { range.contains($0) } }
          #expect(given[group.id].map(keys) ?? [] == expected, "seed \(seed), \(range)")
          #expect(group.lane?.part(of: block).map(keys) ?? [] == expected)
          if expected.count == changed.count { #expect(given[group.id] === block) }
        }
        #expect(given.count <= groups.count)
        let isWanted = { (key: [UInt8]) in
          groups.contains { group in key.withUnsafeBytes { group.key.range.contains($0) } }
        }
        #expect(unwanted == changed.count { !isWanted($0) })
      }
    }
  }

  @Test func aPartIsABlockOfItsOwn() throws {
    let whole = try block([[1], [2], [1], [3]], from: 7)
    var places: [Range<Int>] = []
    whole.forEachEvent { key, place in if key[0] == 1 { places.append(place) } }
    let part = try #require(whole.part(places))
    #expect(part.first == 7 && part.last == 9 && part.eventCount == 2)
    #expect(part.header == Self.header)
    #expect(
      Array(part.bytes) == Wire.written { Self.header.encode(into: &$0) } + event([1], 7) + event([1], 9))
  }

  // MARK: Lanes and their cover

  @Test func aLaneIsWhereItsCoverIs() {
    let (cover, lane) = (group(1, range("a/", "a0")), group(2, range("a/x")))
    lane.keepUp(with: cover)
    #expect(lane.next == 0 && lane.history.from == 0)
    cover.wantsPrevious = true
    cover.stands(Self.header)
    lane.keepUp(with: cover)
    #expect(lane.next == 91 && lane.history.from == 91 && lane.previousFrom == 91)
    #expect(lane.header == Self.header)
    cover.advance(to: 120)
    lane.keepUp(with: cover)
    #expect(lane.next == 121 && lane.history.from == 91)
  }
}

/// Answers about progress, of which some never come.
@Suite struct StandingWatchesTests {
  @Test func anAnswerSpeaksOfNothingThatCameAfterItsQuestion() {
    for seed in Seeds.run(200) {
      var random = SimRandom(seed: seed)
      var standing = StandingWatches()
      var watches: Int64 = 0
      var asked: [Int64] = []
      let loss = random.below(900)
      for _ in 0..<500 {
        if random.chance(300) { watches += 1 }
        if random.chance(400) {
          let isKnown = random.chance(800)
          standing.asked(isKnown ? watches : nil)
          // etcd drops the question, or answers it later.
          if !random.chance(loss) { asked.append(watches) }
        }
        if random.chance(400), !asked.isEmpty {
          let truth = asked.removeFirst()
          let answer = standing.answered()
          #expect(answer <= truth, "seed \(seed)")
        }
      }
    }
  }

  @Test func whenAllAreAnsweredItSpeaksOfAll() {
    var standing = StandingWatches()
    #expect(standing.answered() == 0)
    for last in [3, 3, 5] as [Int64] { standing.asked(last) }
    standing.asked(nil)
    #expect(
      [standing.answered(), standing.answered(), standing.answered(), standing.answered()] == [3, 3, 5, 5])
    #expect(standing.answered() == 0)
  }
}
