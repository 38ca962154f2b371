import Testing
@testable import Reactor

@Suite struct LogLayoutTests {
  private let moment = LogTime(seconds: 1_787_238_795, nanoseconds: 123_456_789)
  private let caller = LogCaller(file: "Proxy/Gateway.swift", line: 42)

  private func render(
    _ format: LogFormat = .json, _ level: LogLevel = .info, at time: LogTime? = nil, _ message: String = "m",
    _ fields: LogField...
  ) -> String {
    let line = LogLayout(format: format)
      .line(level, at: time ?? moment, caller: caller, message: message, fields: fields)
    return String(decoding: line, as: UTF8.self)
  }

  /// What the one field looks like in JSON.
  private func value(_ field: LogField) -> String {
    let line = render(.json, .info, at: nil, "m", field)
    let head =
      "{\"level\":\"info\",\"ts\":\"2026-08-20T15:13:15.123456Z\","
      + "\"caller\":\"proxy/Gateway.swift:42\",\"msg\":\"m\","
    #expect(line.hasPrefix(head) && line.hasSuffix("}\n"))
    return String(line.dropFirst(head.count).dropLast(2))
  }

  @Test func jsonLineHasZapsKeyOrder() {
    let line = render(
      .json, .warn, at: nil, "deactivated endpoint", .string("zone", "b"), .strings("args", ["x", "y"]),
      .duration("interval", nanoseconds: 60_000_000_000), .error(SystemError(code: 111)))
    #expect(
      line == "{\"level\":\"warn\",\"ts\":\"2026-08-20T15:13:15.123456Z\","
        + "\"caller\":\"proxy/Gateway.swift:42\",\"msg\":\"deactivated endpoint\",\"zone\":\"b\",\"args\":[\"x\",\"y\"],\"interval\":\"1m0s\","
        + "\"error\":\"connection refused\"}\n")
  }

  @Test func lineWithoutFieldsEndsAfterTheMessage() {
    #expect(render().hasSuffix("\"msg\":\"m\"}\n"))
    #expect(render(.console).hasSuffix("\tm\n"))
  }

  @Test func consoleLineIsTabbedAndSpaced() {
    let line = render(
      .console, .warn, at: nil, "say \"hi\"", .string("k", "v\t"), .strings("l", ["a", "b"]), .int("n", -1))
    #expect(
      line == "2026-08-20T15:13:15.123456Z\tWARN\tproxy/Gateway.swift:42\tsay \"hi\"\t"
        + "{\"k\": \"v\\t\", \"l\": [\"a\", \"b\"], \"n\": -1}\n")
  }

  @Test(arguments: [
    (0, "2026-08-20T15:13:15.123456Z"), (7200, "2026-08-20T17:13:15.123456+0200"),
    (-12600, "2026-08-20T11:43:15.123456-0330"), (45900, "2026-08-21T03:58:15.123456+1245"),
  ]) func timeCarriesTheZone(offset: Int, expected: String) {
    let time = LogTime(seconds: moment.seconds, nanoseconds: moment.nanoseconds, offset: offset)
    #expect(render(.json, .info, at: time).contains("\"ts\":\"\(expected)\","))
  }

  @Test func timeIsPaddedAndCutOff() {
    let time = LogTime(seconds: 978_307_199, nanoseconds: 1999)
    #expect(render(.console, .info, at: time).hasPrefix("2000-12-31T23:59:59.000001Z\t"))
  }

  @Test func presentIsAfterThisWasWritten() {
    let now = LogTime.now()
    #expect(now.seconds > 1_780_000_000 && (0..<1_000_000_000).contains(now.nanoseconds))
  }

  @Test(arguments: zip(LogLevel.allCases, ["debug", "info", "warn", "error", "fatal"]))
  func levelsHaveZapsNames(level: LogLevel, name: String) {
    #expect(render(.json, level).hasPrefix("{\"level\":\"\(name)\","))
  }

  @Test func callerIsFolderAndFile() {
    #expect(LogCaller(file: "Proxy/Gateway.swift", line: 1).description == "proxy/Gateway.swift:1")
    #expect(LogCaller(file: "Proxy/Kv/Cache.swift", line: 7).description == "Kv/Cache.swift:7")
    #expect(LogCaller(file: "main.swift", line: 3).description == "main.swift:3")
  }

  @Test func escapesWhatZapEscapes() {
    let text = "\u{0}\u{8}\u{b}\u{1f}\n\r\t\"\\/<>&\u{7f}\u{2028}\u{2029}é😀\u{fffd}"
    let escaped =
      "\\u0000\\u0008\\u000b\\u001f\\n\\r\\t\\\"\\\\/<>&\u{7f}\u{2028}\u{2029}é😀\u{fffd}"
    #expect(value(.string("k\n", text)) == "\"k\\n\":\"\(escaped)\"")
    #expect(value(.bytes("k", Array(text.utf8))) == "\"k\":\"\(escaped)\"")
    #expect(render(.json, .info, at: nil, text).contains("\"msg\":\"\(escaped)\""))
  }

  @Test(
    arguments: [
      ([0xFF], 1), ([0x80], 1), ([0xC3], 1), ([0xC0, 0xAF], 2), ([0xED, 0xA0, 0x80], 3), ([0xE2, 0x80], 2),
      ([0xF4, 0x90, 0x80, 0x80], 4), ([0xF0, 0x80, 0x80, 0x80], 4), ([0xE0, 0x80, 0x80], 3), ([0xF5], 1),
    ] as [([UInt8], Int)])
  func everyInvalidByteIsReplaced(bytes: [UInt8], count: Int) {
    let replaced = String(repeating: "\\ufffd", count: count)
    #expect(value(.bytes("k", bytes)) == "\"k\":\"\(replaced)\"")
    #expect(value(.bytes("k", [0x61] + bytes + [0x62])) == "\"k\":\"a\(replaced)b\"")
  }

  @Test func plainValues() {
    #expect(value(.int("k", .min)) == "\"k\":-9223372036854775808")
    #expect(value(.uint("k", .max)) == "\"k\":18446744073709551615")
    #expect(value(.bool("k", true)) == "\"k\":true")
    #expect(value(.bool("k", false)) == "\"k\":false")
    #expect(value(.strings("k", [])) == "\"k\":[]")
    #expect(value(.strings("k", ["a\"", ""])) == "\"k\":[\"a\\\"\",\"\"]")
  }

  @Test(
    arguments: [
      (0, "0"), (-0.0, "-0"), (1, "1"), (-1.5, "-1.5"), (100, "100"), (0.1, "0.1"), (0.05, "0.05"),
      (1e21, "1000000000000000000000"), (1.25e-7, "0.000000125"), (12345.678, "12345.678"),
      (1.2345678e20, "123456780000000000000"), (.nan, "\"NaN\""), (.infinity, "\"+Inf\""),
      (-.infinity, "\"-Inf\""),
    ] as [(Double, String)])
  func doublesHaveNoExponent(number: Double, expected: String) {
    #expect(value(.double("k", number)) == "\"k\":\(expected)")
  }

  @Test(
    arguments: [
      (0, "0s"), (1, "1ns"), (999, "999ns"), (1000, "1µs"), (1500, "1.5µs"), (1_001_000, "1.001ms"),
      (300_000_000, "300ms"), (1_000_000_000, "1s"), (1_000_000_001, "1.000000001s"),
      (60_000_000_000, "1m0s"),
      (3_600_000_000_000, "1h0m0s"), (9_900_500_000_000, "2h45m0.5s"), (-1_500_000_000, "-1.5s"),
      (.max, "2562047h47m16.854775807s"), (.min, "-2562047h47m16.854775808s"),
    ] as [(Int64, String)])
  func durationsAreGos(nanoseconds: Int64, expected: String) {
    #expect(value(.duration("k", nanoseconds: nanoseconds)) == "\"k\":\"\(expected)\"")
  }
}
