import Testing

import Proxy

@Suite struct HistogramTests {
  @Test func boundsAreTidied() {
    #expect(Histogram(bounds: [3, 1, 1, .infinity, .nan, 2]).bounds == [1, 2, 3])
    var bare = Histogram(bounds: [])
    bare.observe(1)
    #expect(bare.cumulative == [1] && bare.count == 1)
  }

  @Test func strangeValuesDoNoHarm() {
    var histogram = Histogram(bounds: [1])
    for value in [Double.nan, -1, 1, 1.0000001] { histogram.observe(value) }
    #expect(histogram.cumulative == [2, 3] && histogram.sum == 1.0000001)
    histogram.observe(.infinity)
    #expect(histogram.cumulative == [2, 4])
  }

  @Test func coresAreMerged() {
    var (a, b) = (Histogram(bounds: [1, 2]), Histogram(bounds: [1, 2]))
    a.observe(0.5)
    b.observe(1.5)
    b.observe(9)
    let merged = a.merge(b)
    #expect(merged && a.cumulative == [1, 2, 3] && a.sum == 11)
    let refused = a.merge(Histogram(bounds: [1, 3]))
    #expect(!refused && a.count == 3)
  }
}
