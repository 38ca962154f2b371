import Testing

@testable import Proxy
@testable import Reactor

/// The cache under every order of reads, writes, news and losses, and whether the test would find out.
@Suite struct CacheModelTests {
  #if DEBUG
    private static let standard = 150
  #else
    private static let standard = 3_000
  #endif

  @Test func showsNobodyWhatHeMustNotSee() {
    var hits = 0
    for seed in Seeds.run(Self.standard) {
      let model = CacheModel(seed: seed)
      if let failure = model.run(1_500) {
        Issue.record("\(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
      hits += model.hits
    }
    let count = Seeds.run(Self.standard).count
    #expect(hits > 50 * count || count == 1, "\(hits) hits")
  }

  @Test(arguments: CacheModel.Mistake.allCases.filter { $0 != .none })
  func findsMistakes(_ mistake: CacheModel.Mistake) {
    let found = (1...300 as ClosedRange<UInt64>).contains { seed in
      CacheModel(seed: seed, mistake).run(1_500) != nil
    }
    #expect(found, "nobody notices that the cache \(mistake)")
  }
}
