import Testing

@testable import Proxy

@Suite struct OptionsTextTests {
  @Test(arguments: [
    ("plain é", "\"plain é\""), ("a\"b\\", "\"a\\\"b\\\\\""), ("\u{1b}\n\t\u{7f}", "\"\\x1b\\n\\t\\x7f\""),
    ("\u{a0}\u{2028}", "\"\\u00a0\\u2028\""), ("\u{10ffff}", "\"\\U0010ffff\""),
  ])
  func quotes(_ text: String, _ quoted: String) { #expect(GoText.quoted(text) == quoted) }

  @Test(
    arguments: [
      ("0", 0), ("-7", -7), ("+7", 7), ("0x1F", 31), ("0b101", 5), ("0o17", 15), ("017", 15), ("1_000", 1000),
      ("0x_1", 1), ("0_7", 7), ("9223372036854775807", .max), ("-9223372036854775808", .min),
    ] as [(String, Int)])
  func integers(_ text: String, _ value: Int) throws { #expect(try GoText.integer(text) == value) }

  @Test(arguments: ["", "-", "x", "08", "0x", "0b2", "1__0", "_1", "1_", "1.5", " 1", "--1"])
  func noIntegers(_ text: String) {
    let reason = "strconv.ParseInt: parsing \(GoText.quoted(text)): invalid syntax"
    #expect(throws: OptionError(reason)) { try GoText.integer(text) }
  }

  @Test(arguments: ["9223372036854775808", "-9223372036854775809", "99999999999999999999999"])
  func integersOutOfRange(_ text: String) {
    let reason = "strconv.ParseInt: parsing \"\(text)\": value out of range"
    #expect(throws: OptionError(reason)) { try GoText.integer(text) }
  }

  @Test func unsignedAndDecimal() throws {
    #expect(try GoText.unsigned("18446744073709551615") == UInt.max)
    #expect(try GoText.unsigned("0xffffffff") == UInt32.max)
    #expect(throws: OptionError("strconv.ParseUint: parsing \"4294967296\": value out of range")) {
      let _: UInt32 = try GoText.unsigned("4294967296")
    }
    #expect(throws: OptionError("strconv.ParseUint: parsing \"-1\": invalid syntax")) {
      let _: UInt = try GoText.unsigned("-1")
    }
    #expect(try GoText.decimal("010") == 10)
    #expect(throws: OptionError("strconv.Atoi: parsing \"1_0\": invalid syntax")) {
      try GoText.decimal("1_0")
    }
  }

  @Test func booleans() throws {
    for text in ["1", "t", "T", "TRUE", "true", "True"] { #expect(try GoText.boolean(text)) }
    for text in ["0", "f", "F", "FALSE", "false", "False"] { #expect(try !GoText.boolean(text)) }
    let reason = "strconv.ParseBool: parsing \"yes\": invalid syntax"
    #expect(throws: OptionError(reason)) { try GoText.boolean("yes") }
  }

  @Test(arguments: [
    ("a", ["a"]), ("a,b", ["a", "b"]), ("a,", ["a", ""]), (",", ["", ""]), ("\"a,b\",c", ["a,b", "c"]),
    ("\"a\"\"b\"", ["a\"b"]), ("\n\r\na,b\r\nc", ["a", "b"]), ("a\r", ["a"]), ("a\rb", ["a\rb"]),
    ("\"a\r\nb\",c", ["a\nb", "c"]), ("\"\"", [""]), (" a, b", [" a", " b"]),
  ])
  func records(_ text: String, _ fields: [String]) throws { #expect(try CSVRecord.fields(text) == fields) }

  @Test(arguments: [
    ("a\"b,c", "parse error on line 1, column 2: bare \" in non-quoted-field"),
    ("\"a", "parse error on line 1, column 3: extraneous or missing \" in quoted-field"),
    ("\"a\"b", "parse error on line 1, column 3: extraneous or missing \" in quoted-field"),
    (
      "\n\"a\nbc\"d",
      "record on line 2; parse error on line 3, column 3: extraneous or missing \" in quoted-field"
    ),
    ("\n\n", "EOF"),
  ])
  func noRecords(_ text: String, _ reason: String) {
    #expect(throws: OptionError(reason)) { try CSVRecord.fields(text) }
  }
}
