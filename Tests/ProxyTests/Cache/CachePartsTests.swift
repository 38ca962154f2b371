import Simulation
import Testing

@testable import Proxy
@testable import Reactor

/// The parts that the cache is made of, against the simplest way to say what they do.
@Suite struct CachePartsTests {
  private func view<Result>(
    _ key: [UInt8], _ end: [UInt8], _ body: (SpanView?) -> Result
  ) -> Result {
    key.withUnsafeBytes { key in end.withUnsafeBytes { body(SpanView(key: key, rangeEnd: $0)) } }
  }

  private func contains(_ key: [UInt8], _ end: [UInt8], _ wanted: [UInt8]) -> Bool {
    if end.isEmpty { return key == wanted }
    return !wanted.lexicographicallyPrecedes(key) && (end == [0] || wanted.lexicographicallyPrecedes(end))
  }

  private static let universe: [[UInt8]] = [
    [0], [1], [1, 0], [1, 1], [2], [2, 0], [2, 9], [3], [255], [255, 255],
  ]

  @Test func spansOverlapWhereTheyShareAKey() {
    var random = SimRandom(seed: 1)
    for _ in 0..<20_000 {
      let (one, two) = (random.pick(Self.universe), random.pick(Self.universe))
      let ends = [[]] + [[0]] + Self.universe
      let (end, other) = (random.pick(ends), random.pick(ends))
      view(one, end) { first in
        view(two, other) { second in
          guard let first, let second else { return }
          // Between any two keys of this universe lies another one, so the end of a range counts.
          let shared = (Self.universe + Self.universe.map { $0 + [0] } + [one, two, one + [0], two + [0]])
            .contains { contains(one, end, $0) && contains(two, other, $0) }
          #expect(first.overlaps(second) == shared, "\(one) \(end) \(two) \(other)")
          #expect(second.overlaps(first) == shared)
        }
      }
    }
  }

  @Test func whatEtcdJudgesIsNoSpan() {
    view([], []) { #expect($0 == nil) }
    view([], [0]) { #expect($0 == nil) }
    view([2], [2]) { #expect($0 == nil) }
    view([2], [1]) { #expect($0 == nil) }
    view([0], [0]) { #expect($0?.kind == .open) }
  }

  @Test func theTreeFindsWhatALookThroughAllFinds() {
    for seed in Seeds.run(100) {
      var random = SimRandom(seed: seed)
      var tree = SpanTree<CacheSpan>(seed: seed)
      var all: [CacheSpan] = []
      for _ in 0..<300 {
        let key = [UInt8(random.below(40)), UInt8(random.below(3))]
        let end = random.pick([[], [0], [UInt8(random.below(60))], [key[0], 5]])
        let principal = Principal(number: UInt32(random.below(2)))
        view(key, end) { span in
          guard let span else { return }
          switch random.below(3) {
          case 0 where !all.isEmpty:
            let place = random.below(all.count)
            tree.remove(all.remove(at: place))
          case 1:
            var found: [CacheSpan] = []
            tree.collect(span, into: &found)
            let expected = all.filter { $0.keys.overlaps(span) }
            #expect(Set(found.map(ObjectIdentifier.init)) == Set(expected.map(ObjectIdentifier.init)))
            #expect(found.count == expected.count)
          default:
            let known = all.first { $0.keys.compare(span) == 0 && $0.principal == principal }
            #expect(tree.find(span, principal) === known)
            if known == nil { all.append(tree.insert(span, principal)) }
          }
          #expect(tree.count == all.count)
        }
      }
    }
  }

  @Test func theIndexForgetsNothing() {
    var random = SimRandom(seed: 3)
    var index = HandleIndex()
    var all: [(UInt64, Handle)] = []
    for step in 0..<20_000 {
      if random.chance(450), !all.isEmpty {
        let (hash, handle) = all.remove(at: random.below(all.count))
        index.remove(hash, handle)
      } else if all.count < 500 {
        // Few hashes, so that they meet.
        let entry = (UInt64(random.below(60)), Handle(slot: UInt32(step), generation: 1))
        index.insert(entry.0, entry.1)
        all.append(entry)
      }
      #expect(index.count == all.count)
      if let (hash, handle) = all.randomElement(using: &random) {
        #expect(index.find(hash) { $0 == handle } == handle)
      }
    }
    for (hash, handle) in all { #expect(index.find(hash) { $0 == handle } == handle) }
  }

  @Test func theLogRefusesWhatIsOlderThanAWrite() {
    for seed in Seeds.run(20) {
      var random = SimRandom(seed: seed)
      var log = WriteLog()
      var all: [(key: [UInt8], end: [UInt8], revision: Int64?, sequence: UInt64)] = []
      for number in 1...4_000 {
        let key = Array("key\(random.below(50))".utf8) + [UInt8](repeating: 7, count: random.below(200))
        let end: [UInt8] = random.chance(100) ? [0xFF] : []
        let revision: Int64? = random.chance(50) ? nil : Int64(number)
        view(key, end) { if let span = $0 { log.add(span, revision, UInt64(number)) } }
        all.append((key, end, revision, UInt64(number)))
        guard number % 20 == 0 else { continue }
        let probe = Array("key\(random.below(50))".utf8)
        let at = Int64(number - random.below(100))
        let sent = UInt64(max(0, number - random.below(100)))
        view(probe, []) { span in
          guard let span else { return }
          let mustRefuse = all.contains { write in
            let isNewer = write.revision.map { $0 > at } ?? (write.sequence > sent)
            return isNewer && contains(write.key, write.end, probe)
          }
          if mustRefuse { #expect(!log.admits(span, at, sentAt: sent)) }
          if at == Int64(number), sent == UInt64(number) { #expect(log.admits(span, at, sentAt: sent)) }
        }
      }
    }
  }

  @Test func theRevisionIsFoundHoweverTheAnswerIsCut() {
    let pool = BlockPool()
    for header in [
      ResponseHeader(clusterID: .max, memberID: .max, revision: .max, raftTerm: .max),
      ResponseHeader(clusterID: 1, memberID: 2, revision: 300, raftTerm: 0), ResponseHeader(),
    ] {
      var message = ByteBuffer(pool)
      header.encode(into: &message)
      message.appendField(4, Int64(5))
      let bytes = Array(message.bytes)
      for cut in 0...bytes.count {
        var peek = RevisionPeek()
        peek.begin(isPlain: true)
        let first = Array(bytes[..<cut]).withUnsafeBytes { peek.take($0) }
        let second = Array(bytes[cut...]).withUnsafeBytes { peek.take($0) }
        #expect([first, second].compactMap { $0 } == [header.revision])
        #expect(!peek.isOpen)
      }
    }
    for other: [UInt8] in [
      [0x12, 1, 0], [0x0A, 0xFF, 0xFF, 0xFF], [0x0A, 4, 0x1A, 1, 0, 0], [0x0A, 2, 0x18, 0x80, 1],
    ] {
      var peek = RevisionPeek()
      peek.begin(isPlain: true)
      #expect(other.withUnsafeBytes { peek.take($0) } == nil)
    }
  }

  // MARK: Requests

  @Test func theFormOfARequestIsOne() {
    let pool = BlockPool()
    func form(_ bytes: [UInt8]) -> [UInt8]? {
      bytes.withUnsafeBytes { message in
        guard let query = RangeQuery(message) else { return nil }
        var output = ByteBuffer(pool)
        query.encode(into: &output)
        return Array(output.bytes)
      }
    }
    let plain = form([0x0A, 1, 97, 0x18, 5])
    #expect(plain == [0x0A, 1, 97, 0x18, 5])
    // Another order, serializable, defaults spelled out, a number in more bytes, a field that is set twice.
    #expect(form([0x18, 5, 0x38, 1, 0x0A, 1, 97]) == plain)
    #expect(form([0x0A, 1, 98, 0x0A, 1, 97, 0x18, 0x85, 0, 0x20, 0, 0x12, 0]) == plain)
    #expect(form([0x0A, 1, 97, 0x18, 6]) != plain)
    #expect(form([0x0A, 1, 97, 0x40, 2]) == form([0x0A, 1, 97, 0x40, 1]))
    // Not understood: a field from the future, one of another type, half a message.
    #expect(form([0x0A, 1, 97, 0x70, 1]) == nil)
    #expect(form([0x0A, 1, 97, 0x1A, 0]) == nil)
    #expect(form([0x0A, 9, 97]) == nil)
  }

  private func written(_ method: EtcdMethod, _ bytes: [UInt8]) -> [String] {
    let pool = BlockPool()
    defer { withExtendedLifetime(pool) {} }
    var list = ByteBuffer(pool)
    bytes.withUnsafeBytes { WrittenKeys.append(method, $0, to: &list) }
    var found: [String] = []
    WrittenKeys.forEach(list.bytes) { item in
      switch item {
      case .everything: found.append("everything")
      case .span(let span):
        let end =
          span.kind == .single
          ? "" : span.kind == .open ? "..." : "..<" + String(decoding: span.end, as: UTF8.self)
        found.append(String(decoding: span.start, as: UTF8.self) + end)
      }
    }
    return found
  }

  private func nested(_ number: UInt8, _ content: [UInt8]) -> [UInt8] {
    [number << 3 | 2, UInt8(content.count)] + content
  }

  @Test func writesAreFoundWhereverTheyStand() {
    let put = nested(1, [97]) + nested(2, [1])
    #expect(written(.put, put) == ["a"])
    #expect(written(.deleteRange, nested(1, [97]) + nested(2, [99])) == ["a..<c"])
    #expect(written(.deleteRange, nested(1, [97]) + nested(2, [0])) == ["a..."])
    #expect(written(.deleteRange, nested(1, [97]) + nested(2, [97])) == [])
    let inner = nested(2, nested(2, nested(1, [98]))) + nested(3, nested(3, nested(1, [99]) + nested(2, [0])))
    let outer = nested(1, nested(3, [97])) + nested(2, nested(2, put)) + nested(3, nested(4, inner))
    #expect(written(.txn, outer) == ["a", "b", "c..."])
    #expect(written(.txn, nested(2, nested(1, nested(1, [97])))) == [])
    #expect(written(.txn, nested(2, nested(9, []))) == ["everything"])
    #expect(
      written(.txn, nested(2, nested(2, nested(1, [97])) + nested(2, nested(1, [98])))) == ["everything"])
    #expect(written(.txn, [0x12, 9]) == ["everything"])
    #expect(written(.leaseRevoke, [8, 1]) == ["everything"])
    #expect(written(.lock, nested(1, [108])) == ["l/..<l0"])
    #expect(written(.resign, nested(1, nested(1, [101]) + nested(2, [101, 47, 49]))) == ["e/1"])
    var deep = nested(2, nested(2, put))
    for _ in 0..<20 { deep = nested(2, nested(4, deep)) }
    #expect(written(.txn, deep) == ["a"])
  }
}
