import Testing

@testable import Proxy

private struct Sample: FlagOptions, Equatable {
  var text = "x"
  var on = false
  var count = 0
  var size: UInt = 1
  var delay = GoDuration.minutes(1)
  var list = ["a"]
  var numbers: [Int] = []
  var level = CommonOptions.LogLevel.info

  static let flags = FlagSet<Sample>(
    command: "sample",
    groups: [
      FlagGroup(
        "Flags",
        [
          Flag("count", \.count, "a count"), Flag("delay", \.delay, "a delay"),
          Flag("list", \.list, "a list"),
          Flag("on", \.on, "a switch"),
        ]),
      FlagGroup(
        "More",
        [
          Flag("level", \.level, "a level"), Flag("numbers", \.numbers, "numbers"),
          Flag("size", \.size, "a size"),
          Flag("text", \.text, "a text"),
        ]),
    ])
}

@Suite struct OptionsFlagSetTests {
  private func parse(_ arguments: String...) throws -> (Sample, ParsedFlags) {
    var options = Sample()
    let parsed = try Sample.flags.parse(arguments, into: &options)
    return (options, parsed)
  }

  @Test func takesEveryKind() throws {
    let (options, parsed) = try parse(
      "--text", "--on", "--count=0x10", "--size", "7", "--delay=1.5h", "--level", "warn", "--numbers=1,2",
      "--numbers", "3", "--on")
    var expected = Sample()
    expected.text = "--on"
    expected.on = true
    expected.count = 16
    expected.size = 7
    expected.delay = .minutes(90)
    expected.level = .warn
    expected.numbers = [1, 2, 3]
    #expect(options == expected)
    #expect(parsed.explicit == ["text", "on", "count", "size", "delay", "level", "numbers"])
  }

  @Test func firstUseOfAListReplacesTheDefault() throws {
    #expect(try parse("--list", "b,\"c,d\"", "--list=e").0.list == ["b", "c,d", "e"])
    #expect(try parse("--list=").0.list == [])
    #expect(try parse().0.list == ["a"])
  }

  @Test func aSwitchTakesNoDetachedValue() throws {
    let (options, parsed) = try parse("--on", "false", "-", "", "--on=T")
    #expect(options.on)
    #expect(parsed.positional == ["false", "-", ""])
    #expect(try !parse("--on=false").0.on)
  }

  @Test func twoDashesEndTheFlags() throws {
    let (options, parsed) = try parse("--count=1", "--", "--count=2", "--x")
    #expect(options.count == 1)
    #expect(parsed.positional == ["--count=2", "--x"])
  }

  @Test func help() throws {
    #expect(try parse("--help").1.wantsHelp)
    #expect(try parse("-hh").1.wantsHelp)
    #expect(try !parse("--help=false").1.wantsHelp)
    #expect(try !parse("-h=false").1.wantsHelp)
    #expect(try !parse().1.wantsHelp)
  }

  @Test(arguments: [
    ("--x", "unknown flag: --x"), ("--x=y=z", "unknown flag: --x"), ("--coun", "unknown flag: --coun"),
    ("-x", "unknown shorthand flag: 'x' in -x"), ("-hx", "unknown shorthand flag: 'x' in -x"),
    ("-x=5", "unknown shorthand flag: 'x' in -x=5"), ("-help", "unknown shorthand flag: 'e' in -elp"),
    ("-h=", "unknown shorthand flag: '=' in -="),
    ("--=x", "bad flag syntax: --=x"), ("---x", "bad flag syntax: ---x"),
    ("--count", "flag needs an argument: --count"),
    (
      "--count=x",
      "invalid argument \"x\" for \"--count\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
    ),
    ("--on=", "invalid argument \"\" for \"--on\" flag: strconv.ParseBool: parsing \"\": invalid syntax"),
    (
      "--help=zz",
      "invalid argument \"zz\" for \"-h, --help\" flag: strconv.ParseBool: parsing \"zz\": invalid syntax"
    ),
    ("--delay=5", "invalid argument \"5\" for \"--delay\" flag: time: missing unit in duration \"5\""),
    (
      "--level=loud",
      "invalid argument \"loud\" for \"--level\" flag: must be one of debug, info, warn, error"
    ),
    (
      "--numbers=1,,2",
      "invalid argument \"1,,2\" for \"--numbers\" flag: strconv.Atoi: parsing \"\": invalid syntax"
    ),
    (
      "--list=a\"b",
      "invalid argument \"a\\\"b\" for \"--list\" flag: "
        + "parse error on line 1, column 2: bare \" in non-quoted-field"
    ),
  ])
  func refuses(_ argument: String, _ reason: String) {
    #expect(throws: OptionError(reason)) { try parse(argument) }
  }

  @Test func usageIsAligned() {
    #expect(
      Sample.flags.usage == """
        Flags:
              --count int        a count
              --delay duration   a delay (default 1m0s)
          -h, --help             help for sample
              --list strings     a list (default [a])
              --on               a switch

        More:
              --level string   a level [debug|info|warn|error] (default "info")
              --numbers ints   numbers
              --size uint      a size (default 1)
              --text string    a text (default "x")

        """)
  }
}
