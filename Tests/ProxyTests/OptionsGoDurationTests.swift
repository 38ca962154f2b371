import Testing

@testable import Proxy

@Suite struct OptionsGoDurationTests {
  @Test(
    arguments: [
      ("0", 0), ("-0", 0), ("+5s", 5_000_000_000), ("300ms", 300_000_000), ("1.5h", 5_400_000_000_000),
      ("-1s", -1_000_000_000), ("1h2m3.5s", 3_723_500_000_000), ("1us", 1000), ("1µs", 1000), ("1μs", 1000),
      ("7ns", 7), (".5s", 500_000_000), ("1.s", 1_000_000_000), ("0.9ns", 0), ("1s1s", 2_000_000_000),
      ("0.3333333333333333333h", 1_200_000_000_000), ("9223372036854775807ns", .max),
      ("-9223372036854775808ns", .min), ("0.100000000000000000000000000001h", 360_000_000_000),
    ] as [(String, Int64)])
  func parses(_ text: String, _ nanoseconds: Int64) throws {
    #expect(try GoDuration(parsing: text).nanoseconds == nanoseconds)
  }

  @Test(arguments: [
    ("", "time: invalid duration \"\""), ("-", "time: invalid duration \"-\""),
    ("5", "time: missing unit in duration \"5\""), ("5s3", "time: missing unit in duration \"5s3\""),
    ("5d", "time: unknown unit \"d\" in duration \"5d\""), (".s", "time: invalid duration \".s\""),
    ("xx", "time: invalid duration \"xx\""), ("é", "time: invalid duration \"\\xc3\\xa9\""),
    ("5 d\"q", "time: unknown unit \" d\\\"q\" in duration \"5 d\\\"q\""),
    ("1000000000000h", "time: invalid duration \"1000000000000h\""),
    ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
    ("-9223372036854775809ns", "time: invalid duration \"-9223372036854775809ns\""),
    ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
    (
      "-9223372036854775808ns9223372036854775808ns",
      "time: invalid duration \"-9223372036854775808ns9223372036854775808ns\""
    ),
  ])
  func refuses(_ text: String, _ reason: String) {
    #expect(throws: OptionError(reason)) { try GoDuration(parsing: text) }
  }

  @Test(
    arguments: [
      (0, "0s"), (1, "1ns"), (1100, "1.1µs"), (300_000_000, "300ms"), (1_500_000_000, "1.5s"),
      (60_000_000_000, "1m0s"), (7_200_000_000_000, "2h0m0s"), (3_723_000_000_001, "1h2m3.000000001s"),
      (-250_000_000, "-250ms"), (.min, "-2562047h47m16.854775808s"), (.max, "2562047h47m16.854775807s"),
    ] as [(Int64, String)])
  func prints(_ nanoseconds: Int64, _ text: String) throws {
    #expect(GoDuration(nanoseconds: nanoseconds).description == text)
    #expect(try GoDuration(parsing: text).nanoseconds == nanoseconds)
  }

  @Test func spansAreNeverNegative() {
    #expect(GoDuration.seconds(-1).span.nanoseconds == 0)
    #expect(GoDuration.seconds(2).span.nanoseconds == 2_000_000_000)
    #expect(GoDuration.minutes(.max) == GoDuration(nanoseconds: .max))
    #expect(GoDuration.minutes(.min) == GoDuration(nanoseconds: .min))
  }
}
