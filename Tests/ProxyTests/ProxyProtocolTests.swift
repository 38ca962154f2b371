import Reactor
import Testing

import Proxy

@Suite struct ProxyProtocolTests {
  static let four = Address.v4(0xC0A8_0001, port: 56324)
  static let otherFour = Address.v4(0xC0A8_000B, port: 443)
  static let six = Address.v6(high: 0x2001_0DB8_0000_0000, low: 1, port: 65535, scope: 0)
  static let otherSix = Address.v6(high: .max, low: .max, port: 0, scope: 0)

  static func parse(_ text: String) -> ProxyProtocol.Verdict { parse(Array(text.utf8)) }
  static func parse(_ bytes: [UInt8]) -> ProxyProtocol.Verdict { ProxyProtocol.parse(bytes.span.bytes) }

  static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
  static func block(_ command: UInt8, _ family: UInt8, _ length: UInt16, _ rest: [UInt8]) -> [UInt8] {
    signature + [command, family, UInt8(length >> 8), UInt8(length & 255)] + rest
  }

  // MARK: Version 1

  @Test func readsLines() {
    let line = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    #expect(
      Self.parse(line + "GET")
        == .header(source: Self.four, destination: Self.otherFour, length: line.utf8.count))
    let longest =
      "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:0db8:0000:0000:0000:0000:0000:0001 0 65535\r\n"
    #expect(
      Self.parse(longest) == .header(source: Self.otherSix, destination: Self.six, length: longest.utf8.count)
    )
    #expect(Self.parse("PROXY UNKNOWN\r\n") == .header(source: nil, destination: nil, length: 15))
    let padded = "PROXY UNKNOWN " + String(repeating: "x", count: 91) + "\r\n"
    #expect(Self.parse(padded) == .header(source: nil, destination: nil, length: 107))
  }

  @Test(arguments: [
    ("GET / HTTP/1.1\r\n", ProxyProtocol.Reason.signature), ("PROXYTCP4", .signature),
    ("proxy TCP4", .signature),
    ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", .line), ("PROXY TCP4 1.1.1.1\r1.1.1.1 1 1\r\n", .line),
    ("PROXY UNKNOWN " + String(repeating: "x", count: 92) + "\r\n", .line),
    ("PROXY " + String(repeating: "x", count: 101), .line), ("PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", .family),
    ("PROXY \r\n", .family), ("PROXY UNKNOWNX\r\n", .family), ("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", .address),
    ("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", .address), ("PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", .address),
    ("PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", .address), ("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", .address),
    ("PROXY TCP4 1.1.1.1 1.1.1.1  1\r\n", .address), ("PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n", .address),
    ("PROXY TCP4 ::1 ::1 1 1\r\n", .address), ("PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", .address),
    ("PROXY TCP6 fe80::1%1 ::1 1 1\r\n", .address), ("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", .address),
  ])
  func refusesLines(text: String, reason: ProxyProtocol.Reason) {
    #expect(Self.parse(text) == .invalid(reason))
  }

  // MARK: Version 2

  @Test func readsBlocks() {
    let addresses: [UInt8] = [192, 168, 0, 1, 192, 168, 0, 11, 0xDC, 4, 1, 0xBB]
    let plain = Self.block(0x21, 0x11, 12, addresses)
    #expect(
      Self.parse(plain + [1, 2]) == .header(source: Self.four, destination: Self.otherFour, length: 28))
    let extended = Self.block(0x21, 0x11, 17, addresses + [4, 0, 2, 9, 9])
    #expect(Self.parse(extended) == .header(source: Self.four, destination: Self.otherFour, length: 33))
    for (command, family) in [(0x20, 0x11), (0x20, 0xFF), (0x21, 0), (0x21, 0x10), (0x21, 1), (0x21, 0x12)] {
      let bytes = Self.block(UInt8(command), UInt8(family), 12, addresses)
      #expect(Self.parse(bytes) == .header(source: nil, destination: nil, length: 28))
    }
    #expect(Self.parse(Self.block(0x20, 0, 0, [])) == .header(source: nil, destination: nil, length: 16))
    let long = Self.block(0x21, 0, 4096, Array(repeating: 7, count: 4096))
    #expect(Self.parse(long) == .header(source: nil, destination: nil, length: 4112))
  }

  @Test func readsUnixNames() {
    func field(_ name: [UInt8]) -> [UInt8] { name + Array(repeating: 0, count: 108 - name.count) }
    let bytes = Self.block(0x21, 0x31, 216, field(Array("/run/a".utf8)) + field([0] + Array("b".utf8)))
    #expect(Self.parse(bytes) == .header(source: .unix("/run/a"), destination: .unix("@b"), length: 232))
    let odd = Self.block(0x21, 0x31, 216, field([]) + Array(repeating: 97, count: 108))
    #expect(Self.parse(odd) == .header(source: .unix(""), destination: nil, length: 232))
  }

  @Test(
    arguments: [
      (0x11, 0x11, 12, ProxyProtocol.Reason.command), (0x22, 0x11, 12, .command), (0x31, 0x11, 12, .command),
      (0x21, 0x41, 12, .family), (0x21, 0x13, 12, .family), (0x21, 0x11, 11, .length),
      (0x21, 0x21, 35, .length),
      (0x21, 0x31, 215, .length), (0x21, 0x00, 4097, .length), (0x20, 0x00, 65535, .length),
    ] as [(UInt8, UInt8, UInt16, ProxyProtocol.Reason)])
  func refusesBlocks(command: UInt8, family: UInt8, length: UInt16, reason: ProxyProtocol.Reason) {
    // Already from the fixed part, so that nobody waits for bytes that cannot help.
    #expect(Self.parse(Self.block(command, family, length, [])) == .invalid(reason))
  }

  // MARK: Both

  static let pairs: [(Address?, Address?)] = [
    (four, otherFour), (six, otherSix), (.unix("/a"), .unix("@b")), (nil, nil), (four, nil),
    (.unix("/a"), four),
  ]

  /// Version 2 of a connection that the peer opened for itself, such as a health check.
  static let localBlock: [UInt8] = signature + [0x20, 0x00, 0, 0]

  static func written() -> [[UInt8]] {
    pairs.flatMap {
      [
        ProxyProtocol.line(source: $0.0, destination: $0.1),
        ProxyProtocol.block(source: $0.0, destination: $0.1),
      ]
    } + [Self.localBlock]
  }

  @Test func everyPrefixAsksForMore() {
    for bytes in Self.written() {
      for length in 0..<bytes.count { #expect(Self.parse(Array(bytes.prefix(length))) == .needMore) }
    }
  }

  @Test func whatIsWrittenCanBeRead() {
    for (source, destination) in Self.pairs.prefix(2) {
      let line = ProxyProtocol.line(source: source, destination: destination)
      #expect(Self.parse(line) == .header(source: source, destination: destination, length: line.count))
    }
    for (source, destination) in Self.pairs.prefix(3) {
      let block = ProxyProtocol.block(source: source, destination: destination)
      #expect(Self.parse(block) == .header(source: source, destination: destination, length: block.count))
    }
    for (source, destination) in Self.pairs.dropFirst(3) {
      let block = ProxyProtocol.block(source: source, destination: destination)
      #expect(Self.parse(block) == .header(source: nil, destination: nil, length: 16))
    }
    for (source, destination) in Self.pairs.dropFirst(2) {
      #expect(ProxyProtocol.line(source: source, destination: destination) == Array("PROXY UNKNOWN\r\n".utf8))
    }
    #expect(Self.parse(Self.localBlock) == .header(source: nil, destination: nil, length: 16))
  }

  @Test func writesTheBytesOfTheFormat() {
    let line = ProxyProtocol.line(source: Self.four, destination: Self.otherFour)
    #expect(String(decoding: line, as: UTF8.self) == "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n")
    let block = ProxyProtocol.block(source: Self.four, destination: Self.otherFour)
    #expect(block == Self.block(0x21, 0x11, 12, [192, 168, 0, 1, 192, 168, 0, 11, 0xDC, 4, 1, 0xBB]))
  }

  @Test func mixedFamiliesAreMapped() {
    let mapped = Address.v6(high: 0, low: 0xFFFF_C0A8_0001, port: 56324, scope: 0)
    for bytes in [
      ProxyProtocol.line(source: Self.four, destination: Self.six),
      ProxyProtocol.block(source: Self.four, destination: Self.six),
    ] {
      #expect(Self.parse(bytes) == .header(source: mapped, destination: Self.six, length: bytes.count))
    }
    let dual = ProxyProtocol.line(source: mapped, destination: Self.otherFour)
    #expect(dual == ProxyProtocol.line(source: Self.four, destination: Self.otherFour))
    let zoned = Address.v6(high: 0xFE80 << 48, low: 1, port: 1, scope: 3)
    let bytes = ProxyProtocol.line(source: zoned, destination: Self.six)
    let bare = Address.v6(high: 0xFE80 << 48, low: 1, port: 1, scope: 0)
    #expect(Self.parse(bytes) == .header(source: bare, destination: Self.six, length: bytes.count))
  }

  @Test func noBytesAreTooStrange() {
    var storm = ByteStorm(seed: 4)
    var verdicts = (more: 0, header: 0, invalid: 0)
    storm.inputs(200_000, from: Self.written()) { bytes in
      switch Self.parse(bytes) {
      case .needMore: verdicts.more += 1
      case .invalid: verdicts.invalid += 1
      case .header(_, _, let length):
        verdicts.header += 1
        #expect(length <= bytes.count && length <= 16 + 4096)
      }
    }
    #expect(verdicts.more > 9 && verdicts.header > 9 && verdicts.invalid > 9)
  }
}
