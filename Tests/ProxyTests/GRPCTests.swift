import Reactor
import Testing

@testable import Proxy

@Suite struct GRPCStatusTests {
  @Test func codesComeFromHeaders() {
    for code in GRPCStatus.Code.allCases { #expect(Self.code("\(code.rawValue)") == code) }
    for text in ["", "17", "255", "256", "300", "99999999999999999999", "-1", "1x", " 1"] {
      #expect(Self.code(text) == .unknown, "\(text)")
    }
    #expect(Self.code("07") == .permissionDenied)
  }

  private static func code(_ text: String) -> GRPCStatus.Code {
    Array(text.utf8).withUnsafeBytes { GRPCStatus.Code(header: $0) }
  }

  @Test(arguments: [
    (400, GRPCStatus.Code.internal), (401, .unauthenticated), (403, .permissionDenied), (404, .unimplemented),
    (429, .unavailable), (502, .unavailable), (503, .unavailable), (504, .unavailable), (200, .unknown),
    (500, .unknown), (-1, .unknown),
  ])
  func httpStatus(status: Int, code: GRPCStatus.Code) { #expect(GRPCStatus.Code(httpStatus: status) == code) }

  @Test(arguments: [
    (UInt32(0), GRPCStatus.Code.internal), (1, .internal), (2, .internal), (3, .resourceExhausted),
    (5, .internal),
    (7, .unavailable), (8, .canceled), (0xB, .resourceExhausted), (0xC, .permissionDenied), (0xD, .internal),
    (0xE, .unknown), (.max, .unknown),
  ])
  func resetCode(reset: UInt32, code: GRPCStatus.Code) { #expect(GRPCStatus.Code(resetCode: reset) == code) }

  @Test func messagesAreCoded() {
    #expect(coded("etcdserver: no leader") == "etcdserver: no leader")
    #expect(coded("100% \u{7F}\n~ é") == "100%25 %7F%0A~ %C3%A9")
    #expect(decoded("100%25 %7f%0A~ %C3%A9") == Array("100% \u{7F}\n~ é".utf8))
    for text in ["%", "%4", "%%4", "a%zzb", "%4g", "%"] { #expect(decoded(text) == Array(text.utf8)) }
    #expect(decoded("%%41") == Array("%A".utf8))
    var storm = ByteStorm(seed: 11)
    for _ in 0..<500 {
      let bytes = storm.noise(upTo: 40)
      #expect(decoded(coded(bytes)) == bytes)
    }
  }

  private func coded(_ text: String) -> String { coded(Array(text.utf8)) }

  private func coded(_ text: [UInt8]) -> String {
    let written = Wire.written { output in text.withUnsafeBytes { PercentCoding.encode($0, into: &output) } }
    return String(decoding: written, as: UTF8.self)
  }

  private func decoded(_ text: String) -> [UInt8] {
    Array(text.utf8).withUnsafeBytes { PercentCoding.decode($0) }
  }
}

@Suite struct GRPCTimeoutTests {
  private func parsed(_ text: String) -> UInt64? {
    Array(text.utf8).withUnsafeBytes { GRPCTimeout.parse($0)?.nanoseconds }
  }

  private func formatted(_ nanoseconds: UInt64) -> String {
    var room = [UInt8](repeating: 0, count: GRPCTimeout.longest)
    let size = room.withUnsafeMutableBytes {
      GRPCTimeout.format(Instant.Span(nanoseconds: nanoseconds), into: $0)
    }
    return String(decoding: room.prefix(size), as: UTF8.self)
  }

  @Test func readsUnits() {
    #expect(parsed("1n") == 1)
    #expect(parsed("2u") == 2000)
    #expect(parsed("3m") == 3_000_000)
    #expect(parsed("4S") == 4_000_000_000)
    #expect(parsed("5M") == 300_000_000_000)
    #expect(parsed("6H") == 21_600_000_000_000)
    #expect(parsed("00000000n") == 0)
    #expect(parsed("99999999H") == .max)
  }

  @Test func refusesWhatIsNone() {
    for text in ["", "n", "1", "1h", "1s", "123456789n", "-1n", "+1n", "1 n", "1.5S", "1nn", "١n"] {
      #expect(parsed(text) == nil, "\(text)")
    }
  }

  @Test(arguments: [
    (0, "0n"), (1, "1n"), (99_999_999, "99999999n"), (100_000_000, "100000u"), (99_999_999_999, "99999999u"),
    (100_000_000_000, "100000m"), (100_000_000_000_000, "100000S"), (99_999_999_999_999_999, "99999999S"),
    (100_000_000_000_000_000, "1666666M"), (.max, "5124095H"),
  ])
  func writesTheFinestUnitThatFits(nanoseconds: UInt64, text: String) {
    #expect(formatted(nanoseconds) == text)
  }

  @Test func neverLongerThanWhatIsLeft() throws {
    var storm = ByteStorm(seed: 3)
    for _ in 0..<2000 {
      let span = storm.next() >> UInt64(storm.below(64))
      let text = formatted(span)
      #expect(text.utf8.count <= GRPCTimeout.longest)
      let back = try #require(parsed(text))
      #expect(back <= span && (back > 0 || span == 0))
      #expect(span - back <= span / 100_000)
    }
  }
}

@Suite struct MessageFramerTests {
  private enum Found: Equatable {
    case header(UInt8, Int)
    case message([UInt8])
  }

  private func scan(_ pieces: [[UInt8]]) -> (found: [Found], ends: Bool) {
    var framer = MessageFramer()
    var found: [Found] = []
    var message: [UInt8] = []
    for piece in pieces {
      piece.withUnsafeBytes { bytes in
        var offset = 0
        while let step = framer.next(bytes, from: &offset) {
          switch step {
          case .header(let flag, let length):
            found.append(.header(flag, length))
            #expect(framer.awaited == length)
          case .payload(let range, let isLast):
            message += bytes[range]
            #expect(isLast || !range.isEmpty)
            if isLast {
              found.append(.message(message))
              message = []
            }
          }
        }
        #expect(offset == bytes.count)
      }
    }
    return (found, framer.isBetweenMessages)
  }

  private func frame(_ flag: UInt8, _ message: [UInt8]) -> [UInt8] {
    var header = [UInt8](repeating: 9, count: 5)
    header.withUnsafeMutableBytes { MessageFramer.writeHeader(length: UInt32(message.count), into: $0) }
    #expect(header[0] == 0)
    return [flag] + header.dropFirst() + message
  }

  @Test func findsMessagesHoweverTheyAreCut() {
    var storm = ByteStorm(seed: 5)
    for _ in 0..<300 {
      let messages = (0..<storm.below(6)).map { _ in storm.noise(upTo: storm.below(2) == 0 ? 3 : 700) }
      var body = messages.enumerated().flatMap { frame(UInt8($0.offset & 1), $0.element) }
      let expected = messages.enumerated().flatMap { (place, message) -> [Found] in
        [.header(UInt8(place & 1), message.count), .message(message)]
      }
      var pieces: [[UInt8]] = []
      while !body.isEmpty {
        let size = storm.below(min(body.count, 20) + 1)
        pieces.append(Array(body.prefix(size)))
        body.removeFirst(size)
      }
      let result = scan(pieces)
      #expect(result.found == expected)
      #expect(result.ends)
    }
  }

  @Test func tellsLengthsBeforeAnythingIsThere() {
    let result = scan([[1, 0xFF, 0xFF], [0xFF, 0xFF]])
    #expect(result.found == [.header(1, 0xFFFF_FFFF)])
    #expect(!result.ends)
    #expect(!scan([[0]]).ends)
    #expect(scan([[0, 0, 0, 0, 0]]).ends)
    #expect(!scan([[0, 0, 0, 0, 1]]).ends)
  }
}
