import Testing

import Proxy

@Suite struct ScheduleTests {
  static func entries(_ weights: [UInt16], priority: UInt16 = 0) -> [Schedule.Entry] {
    weights.enumerated().map { Schedule.Entry(index: $0.offset, priority: priority, weight: $0.element) }
  }

  static func counts(_ weights: [UInt16]) -> [Int] {
    let slots = Schedule.build(entries(weights)).first?.slots ?? []
    return weights.indices.map { index in slots.count { $0 == index } }
  }

  @Test func nothingGivesNothing() { #expect(Schedule.build([]).isEmpty) }

  /// etcd sends all to the first of two records of weight 1, and too little to the last of three of weight 10.
  @Test(
    arguments: [
      ([1, 1], [0, 1]), ([10, 10, 10], [0, 1, 2]), ([0, 0, 0], [0, 1, 2]), ([7], [0]), ([0], [0]),
      ([65535, 65535], [0, 1]),
    ] as [([UInt16], [Int])])
  func equalWeightsAreRoundRobin(weights: [UInt16], slots: [Int]) {
    #expect(Schedule.build(Self.entries(weights)).map(\.slots) == [slots])
  }

  @Test(
    arguments: [
      ([5, 1, 1], [0, 0, 1, 0, 2, 0, 0]), ([2, 1], [0, 1, 0]),
      ([20, 30, 50], [2, 1, 0, 2, 1, 2, 2, 0, 1, 2]),
    ] as [([UInt16], [Int])])
  func weightsAreSpreadSmoothly(weights: [UInt16], slots: [Int]) {
    #expect(Schedule.build(Self.entries(weights)).first?.slots == slots)
  }

  @Test(
    arguments: [
      ([1, 0], [99, 1]), ([0, 3], [1, 99]), ([1, 1, 0], [99, 99, 2]), ([1, 0, 0], [198, 1, 1]),
      ([3, 1, 0, 0], [297, 99, 2, 2]), ([100, 0], [99, 1]),
    ] as [([UInt16], [Int])])
  func weightZeroSharesOnePercent(weights: [UInt16], counts: [Int]) {
    #expect(Self.counts(weights) == counts)
  }

  @Test(
    arguments: [
      ([65535, 1], [1023, 1]), ([65535, 65534], [512, 512]), ([1000, 999, 1], [512, 511, 1]),
      ([3000, 2000, 1], [614, 409, 1]), ([65535, 1, 1, 1, 1], [1020, 1, 1, 1, 1]),
      ([60000, 30001, 0], [676, 338, 10]),
    ] as [([UInt16], [Int])])
  func longRoundsAreScaled(weights: [UInt16], counts: [Int]) { #expect(Self.counts(weights) == counts) }

  /// etcd's round robin for weight 0 runs over all priorities.
  @Test func prioritiesStayApart() {
    let mixed = [
      Schedule.Entry(index: 4, priority: 20, weight: 0), .init(index: 7, priority: 10, weight: 0),
      .init(index: 1, priority: 10, weight: 0), .init(index: 3, priority: 65535, weight: 9),
    ]
    let classes = Schedule.build(mixed)
    #expect(classes.map(\.priority) == [10, 20, 65535])
    #expect(classes.map(\.slots) == [[7, 1], [4], [3]])
  }

  @Test func holdsItsBoundsForAnyWeights() {
    var storm = ByteStorm(seed: 5)
    for _ in 0..<400 {
      let range = [2, 10, 1000, 65536][storm.below(4)]
      let weights = (0...storm.below(40)).map { _ in UInt16(storm.below(range)) }
      let counts = Self.counts(weights)
      let total = counts.reduce(0, +)
      #expect(counts.allSatisfy { $0 > 0 } && total <= Schedule.mostSlots)
      let sum = weights.reduce(0) { $0 + Int($1) }
      guard sum > 0, !weights.contains(0) else { continue }
      // Beyond a slot of rounding, only the slots lent to the smallest ones may be missing.
      for (weight, count) in zip(weights, counts) {
        let fair = Double(weight) * Double(total) / Double(sum)
        #expect(abs(Double(count) - fair) <= max(1, Double(weights.count) * fair / Double(total)) + 1)
      }
    }
  }

  @Test func manyEndpointsGetASlotEach() {
    for count in [1023, 1024, 1025, 3000] {
      let weights = (0..<count).map { UInt16($0 % 3 + 1) }
      let counts = Self.counts(weights)
      #expect(counts.allSatisfy { $0 >= 1 })
      #expect(counts.reduce(0, +) == max(count, 1024))
    }
  }

  @Test func noEndpointWaitsLong() {
    let slots = Schedule.build(Self.entries([8, 4, 2, 1, 1])).first?.slots ?? []
    #expect(slots.count == 16)
    let twice = slots + slots
    for (index, weight) in [8, 4, 2, 1, 1].enumerated() {
      let places = twice.indices.filter { twice[$0] == index }
      let gaps = zip(places.dropFirst(), places).map { $0 - $1 }
      #expect((gaps.max() ?? 0) <= 2 * 16 / weight)
    }
  }
}
