import Reactor
import Testing

@testable import Proxy

/// Blocks and their variants, held against what each watcher has asked for.
@Suite struct WatchBlockTests {
  private static let header = ResponseHeader(clusterID: 300, memberID: 5, revision: 90, raftTerm: 2)

  private struct Change {
    var key = "k"
    var revision: UInt64
    var isDelete = false
    var previous: String?
    var value = "v"

    /// The field of an event in a `WatchResponse`.
    var field: [UInt8] {
      let kind = isDelete ? Wire.field(1, number: 1) : []
      let pair = Wire.field(1, key) + Wire.field(3, number: revision) + Wire.field(5, value)
      let before = previous.map { Wire.field(3, Wire.field(5, $0)) } ?? []
      return Wire.field(11, kind + Wire.field(2, pair) + before)
    }
  }

  private func made(_ changes: [Change], previous: Bool = false, from floor: Int64 = 0) -> WatchBlock? {
    changes.flatMap(\.field).withUnsafeBytes {
      WatchBlock($0, header: Self.header, hasPrevious: previous, from: floor)
    }
  }

  private func events(_ message: [UInt8]) throws -> [(revision: Int64, isDelete: Bool, hasPrevious: Bool)] {
    try message.withUnsafeBytes { bytes in
      var sequence = try WatchResponse(bytes).events
      var found: [(Int64, Bool, Bool)] = []
      while let event = try sequence.next().map({ try WatchEvent($0) }) {
        found.append((try event.revision, event.isDelete, event.previous != nil))
      }
      return found
    }
  }

  private let mixed = [
    Change(revision: 7, previous: "old"), Change(revision: 7, isDelete: true, previous: "gone"),
    Change(revision: 9), Change(revision: 12, isDelete: true),
  ]

  @Test func aBlockIsTheResponse() throws {
    let block = try #require(made(mixed, previous: true))
    #expect(block.first == 7 && block.last == 12 && block.eventCount == 4)
    let message = Array(block.bytes)
    #expect(message == Wire.written { Self.header.encode(into: &$0) } + mixed.flatMap(\.field))
    #expect(try events(message).map(\.revision) == [7, 7, 9, 12])
  }

  @Test func whatCannotBeReadIsNoBlock() {
    #expect(made([]) == nil)
    #expect(
      [UInt8]([0x5A, 9, 1]).withUnsafeBytes { WatchBlock($0, header: Self.header, hasPrevious: false) } == nil
    )
    #expect(made(mixed, from: 13) == nil)
  }

  @Test func cutsAtARevision() throws {
    let cut = try #require(made(mixed, previous: true)?.cut(from: 8))
    #expect(cut.first == 9 && cut.last == 12 && cut.eventCount == 2)
    #expect(try events(Array(cut.bytes)).map(\.revision) == [9, 12])
  }

  @Test func variantsLeaveOutWhatIsNotWanted() throws {
    let block = try #require(made(mixed, previous: true))
    let noPuts = block.encoding([.noPuts]).messages
    #expect(noPuts.count == 1)
    #expect(try events(noPuts[0]).map(\.revision) == [7, 12])
    let noDeletes = block.encoding([.noDeletes, .noPrevious]).messages
    #expect(try events(noDeletes[0]).map(\.revision) == [7, 9])
    #expect(try events(noDeletes[0]).allSatisfy { !$0.hasPrevious })
    #expect(block.encoding([.noPuts, .noDeletes]).messages.isEmpty)
    // The same encoding for all who want the same.
    #expect(block.encoding([.noPuts]) === block.encoding([.noPuts]))
  }

  @Test func onlyWhatMakesADifferenceIsAVariant() throws {
    let all: WatchBlock.Variant = [.noPuts, .noDeletes, .noPrevious, .parts]
    let puts = try #require(made([Change(revision: 1)]))
    #expect(puts.relevant(all) == [.noPuts])
    let deletes = try #require(made([Change(revision: 1, isDelete: true, previous: "x")], previous: true))
    #expect(deletes.relevant(all) == [.noDeletes, .noPrevious])
    #expect(deletes.relevant([]) == [])
  }

  @Test func largeBlocksAreCutIntoPartsAsEtcdDoes() throws {
    let value = String(repeating: "x", count: 700_000)
    let changes = (1...7).map { Change(revision: UInt64($0), value: value) }
    let block = try #require(made(changes))
    #expect(block.relevant([.parts]) == [.parts])
    let parts = block.encoding([.parts]).messages
    #expect(parts.count == 4)
    #expect(parts.allSatisfy { $0.count < WatchBlock.partBytes })
    var revisions: [Int64] = []
    for (place, part) in parts.enumerated() {
      revisions += try events(part).map(\.revision)
      let isFragment = try part.withUnsafeBytes { try WatchResponse($0).isFragment }
      #expect(isFragment == (place < parts.count - 1))
    }
    #expect(revisions == Array(1...7))
  }
}

/// The history of a group: what it holds, and from where on it is complete.
@Suite struct WatchHistoryTests {
  static func block(_ revision: UInt64, size: Int = 10) -> WatchBlock {
    let pair =
      Wire.field(1, "k") + Wire.field(3, number: revision) + Wire.field(5, [UInt8](repeating: 1, count: size))
    let bytes = Wire.field(11, Wire.field(2, pair))
    let made = bytes.withUnsafeBytes { WatchBlock($0, header: ResponseHeader(), hasPrevious: false) }
    guard let made else { preconditionFailure("an event that cannot be read") }
    return made
  }

  private let start = Instant(nanoseconds: 1_000_000_000)

  @Test func numbersAndRevisions() {
    var history = WatchHistory()
    history.restart(from: 5)
    for revision in [6, 9, 20] as [UInt64] { history.append(Self.block(revision), now: start, most: 1 << 20) }
    #expect(history.from == 5 && history.base == 0 && history.end == 3)
    #expect([5, 6, 7, 9, 10, 20, 21].map { history.find($0) } == [0, 0, 1, 1, 2, 2, 3])
    #expect(history[1].last == 9)
  }

  @Test func shrinksFromTheFront() {
    var history = WatchHistory()
    history.restart(from: 1)
    for revision in 1...200 as ClosedRange<UInt64> {
      history.append(Self.block(revision), now: start + .seconds(revision), most: 2000)
      #expect(history.byteCount <= 2000)
      #expect(history[history.end - 1].last == Int64(revision))
    }
    #expect(history.end == 200 && history.base > 150)
    #expect(history.from == Int64(history.base) + 1)
    #expect(history.find(history.from) == history.base)
    history.trim(before: start + .seconds(199))
    #expect(history.count == 2 && history.from == 199)
    history.trim(before: start + .seconds(500))
    #expect(history.count == 0 && history.from == 201 && history.byteCount == 0)
  }

  @Test func aBlockLargerThanTheLimitStays() {
    var history = WatchHistory()
    history.restart(from: 1)
    history.append(Self.block(1), now: start, most: 1000)
    history.append(Self.block(2, size: 5000), now: start, most: 1000)
    #expect(history.count == 1 && history[history.base].last == 2 && history.from == 2)
  }

  @Test func restartsForgetButNumbersGoOn() {
    var history = WatchHistory()
    history.restart(from: 1)
    history.append(Self.block(1), now: start, most: 1000)
    history.restart(from: 7)
    #expect(history.base == 1 && history.end == 1 && history.from == 7 && history.count == 0)
  }
}

/// A group that brings the past loses nothing that nobody has had, however much comes at a time.
@Suite struct WatchPastTests {
  private let start = Instant(nanoseconds: 1_000_000_000)

  private func group(_ kind: GroupKey.Kind) -> LocalGroup {
    let range = WatchRange(key: Array("k".utf8), end: [])
    let key = GroupKey(range: range, principal: .nobody, requiresLeader: false, kind: kind)
    let group = LocalGroup(key, home: 0, ticket: 1, wantsPrevious: false)
    let state = WatchState(header: ResponseHeader(), next: 1, from: 1, previousFrom: .max)
    group.stands(state, afterQuestion: 0)
    return group
  }

  @Test func nothingGoesBeforeTheFastestHasHadIt() {
    let past = group(.catchUp(1, from: 1, wantsPrevious: false))
    let live = group(.live)
    for revision in 1...5 as ClosedRange<UInt64> {
      past.append(WatchHistoryTests.block(revision, size: 600), now: start, most: 1000)
      live.append(WatchHistoryTests.block(revision, size: 600), now: start, most: 1000)
    }
    #expect(past.history.base == 0 && past.history.count == 5)
    #expect(live.history.count == 1)
    #expect(past.reached(2))
    #expect(!past.reached(1), "a slower one changes nothing")
    past.append(WatchHistoryTests.block(6, size: 600), now: start, most: 1000)
    #expect(past.history.base == 2 && past.history.count == 4, "what somebody has had may go")
  }

  @Test func whatWasTakenIsReportedOnce() {
    let past = group(.catchUp(1, from: 1, wantsPrevious: false))
    for revision in 1...3 as ClosedRange<UInt64> {
      past.append(WatchHistoryTests.block(revision), now: start, most: 1 << 20)
    }
    let all = past.history.byteCount
    #expect(past.reached(2))
    #expect(past.takeReport() == 0, "too little for a message, and not yet all")
    #expect(past.reached(3))
    #expect(past.takeReport() == all)
    #expect(past.takeReport() == 0)
    #expect(!group(.live).reached(0))
  }

  @Test func aPastThatNobodyTakesIsGivenUp() {
    let past = group(.catchUp(1, from: 1, wantsPrevious: false))
    past.append(WatchHistoryTests.block(1), now: start, most: 1 << 20)
    #expect(past.trim(before: start, most: 1 << 20))
    #expect(!past.trim(before: start + .seconds(1), most: 1 << 20))
    #expect(past.history.count == 1)
    #expect(past.reached(1))
    #expect(past.trim(before: start + .seconds(1), most: 1 << 20))
    #expect(past.history.count == 0)
  }
}

@Suite struct WatchRangeTests {
  private func contains(_ range: WatchRange, _ key: String) -> Bool {
    Array(key.utf8).withUnsafeBytes { range.contains($0) }
  }

  @Test func ranges() {
    let single = WatchRange(key: Array("b".utf8), end: [])
    #expect(contains(single, "b") && !contains(single, "ba") && !contains(single, "a"))
    let prefix = WatchRange(key: Array("b".utf8), end: Array("c".utf8))
    #expect(
      contains(prefix, "b") && contains(prefix, "bz") && !contains(prefix, "c") && !contains(prefix, "a"))
    let fromKey = WatchRange(key: Array("b".utf8), end: [0])
    #expect(contains(fromKey, "b") && contains(fromKey, "zz") && !contains(fromKey, "a"))
    let everything = WatchRange(key: [], end: [0])
    #expect(everything.key == [0] && contains(everything, "a"))
  }

  @Test func emptyOnes() {
    #expect(WatchRange(key: Array("b".utf8), end: Array("b".utf8)).isEmpty)
    #expect(WatchRange(key: Array("b".utf8), end: Array("a".utf8)).isEmpty)
    #expect(!WatchRange(key: Array("b".utf8), end: [0]).isEmpty)
    #expect(!WatchRange(key: Array("b".utf8), end: []).isEmpty)
  }

  @Test func allCoresAgreeOnTheHome() {
    let range = WatchRange(key: Array("some key".utf8), end: [0])
    #expect((0..<10).allSatisfy { _ in range.home(7) == range.home(7) })
    let homes = Set((0..<100).map { WatchRange(key: Array("key \($0)".utf8), end: []).home(4) })
    #expect(homes.count == 4)
  }
}
