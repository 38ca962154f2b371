import Testing

@testable import Proxy

@Suite struct LimitsTests {
  @Test func theCapsFitTogether() { Limits.check() }
}
