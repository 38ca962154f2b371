import Testing

import Proxy

@Suite struct DNSAnswerTests {
  static let pointer: [UInt8] = [0xC0, 12]

  static func name(_ text: String) -> [UInt8] {
    text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + $0.utf8 } + [0]
  }

  static func pair(_ number: Int) -> [UInt8] { [UInt8(number >> 8 & 255), UInt8(number & 255)] }

  static func record(_ owner: [UInt8], type: Int, ttl: UInt32, _ data: [UInt8], of kind: Int = 1) -> [UInt8] {
    owner + pair(type) + pair(kind) + pair(Int(ttl >> 16)) + pair(Int(ttl & 0xFFFF)) + pair(data.count) + data
  }

  static func service(_ priority: Int, _ weight: Int, _ port: Int, _ target: [UInt8]) -> [UInt8] {
    pair(priority) + pair(weight) + pair(port) + target
  }

  /// A response to one question for `_etcd-client._tcp.example.com`.
  static func response(_ records: [[UInt8]], flags: Int = 0x8180, count: Int? = nil) -> [UInt8] {
    pair(0xBEEF) + pair(flags) + pair(1) + pair(count ?? records.count) + pair(0) + pair(0)
      + name("_etcd-client._tcp.example.com") + pair(33) + pair(1) + records.flatMap { $0 }
  }

  static func read(_ bytes: [UInt8]) throws(DNSAnswer.Malformed) -> DNSAnswer {
    try DNSAnswer(bytes.span.bytes)
  }

  static func malformed(_ bytes: [UInt8]) -> DNSAnswer.Malformed? {
    do throws(DNSAnswer.Malformed) { _ = try read(bytes) } catch { return error }
    return nil
  }

  /// Two records, the second target compressed: `infra1` and a pointer to `example.com` in the question.
  static let usual = response([
    record(pointer, type: 33, ttl: 300, service(10, 20, 2379, name("infra0.example.com"))),
    record(pointer, type: 33, ttl: 60, service(0, 65535, 2380, [6] + Array("infra1".utf8) + [0xC0, 30])),
  ])

  @Test func readsRecordsAndTheShortestLifetime() throws {
    let answer = try Self.read(Self.usual)
    #expect(
      answer.services == [
        DNSAnswer.Service(priority: 10, weight: 20, port: 2379, target: "infra0.example.com"),
        DNSAnswer.Service(priority: 0, weight: 65535, port: 2380, target: "infra1.example.com"),
      ])
    #expect(answer.lifetime == 60 && answer.responseCode == 0 && answer.rejected == 0)
  }

  @Test func followsAliasesAndSkipsTheRest() throws {
    let answer = try Self.read(
      Self.response([
        Self.record(Self.pointer, type: 5, ttl: 5, Self.name("a.b")),
        Self.record(Self.name("a.b"), type: 33, ttl: 60, Self.service(1, 2, 3, Self.name("h"))),
        Self.record(Self.name("a.b"), type: 46, ttl: 1, [1, 2, 3]),
        Self.record(Self.name("a.b"), type: 33, ttl: 1, Self.service(1, 2, 3, Self.name("chaos")), of: 3),
      ]))
    #expect(answer.services.map(\.target) == ["h"])
    #expect(answer.lifetime == 5)
  }

  @Test func readsEmptyAnswers() throws {
    let missing = try Self.read(Self.response([], flags: 0x8183))
    #expect(missing.services.isEmpty && missing.lifetime == nil && missing.responseCode == 3)
    let root = try Self.read(
      Self.response([Self.record(Self.pointer, type: 33, ttl: 9, Self.service(0, 0, 0, [0]))]))
    #expect(root.services.map(\.target) == ["."])
    let negative = Self.record(
      Self.pointer, type: 33, ttl: 0x8000_0000, Self.service(0, 0, 1, Self.name("h")))
    #expect(try Self.read(Self.response([negative])).lifetime == 0)
  }

  @Test func leavesOutTargetsThatAreNoHostNames() throws {
    let targets: [[UInt8]] = [
      Self.name("h st"), [3] + Array("a.b".utf8) + [0], [1, 0, 0], [1, 0xFF, 0], Self.name("a\"b"),
      Self.name("ok-_9"),
    ]
    let answer = try Self.read(
      Self.response(targets.map { Self.record(Self.pointer, type: 33, ttl: 1, Self.service(0, 0, 1, $0)) }))
    #expect(answer.services.map(\.target) == ["ok-_9"])
    #expect(answer.rejected == 5)
  }

  @Test func boundsNames() {
    func target(_ bytes: [UInt8]) -> [UInt8] {
      Self.response([Self.record(Self.pointer, type: 33, ttl: 1, Self.service(0, 0, 1, bytes))])
    }
    let label = [63] + [UInt8](repeating: 97, count: 63)
    let longest = label + label + label + [61] + [UInt8](repeating: 97, count: 61) + [0]
    #expect(longest.count == 255)
    #expect(Self.malformed(target(longest)) == nil)
    #expect(
      Self.malformed(target(label + label + label + [62] + [UInt8](repeating: 97, count: 62) + [0]))
        == .badName)
    #expect(Self.malformed(target([64] + [UInt8](repeating: 97, count: 64) + [0])) == .badName)
    #expect(Self.malformed(target([0x80, 0])) == .badName)
  }

  @Test func pointersOnlyGoBack() {
    // The owner of the record starts right behind the question.
    let place = UInt8(Self.response([]).count)
    func owner(_ bytes: [UInt8]) -> [UInt8] {
      Self.response([Self.record(bytes, type: 33, ttl: 1, Self.service(0, 0, 1, [0]))])
    }
    #expect(Self.malformed(owner([0xC0, place])) == .badPointer)
    #expect(Self.malformed(owner([0xC0, place + 1])) == .badPointer)
    #expect(Self.malformed(owner([1, 97, 0xC0, place])) == .badPointer)
    #expect(Self.malformed(owner([0xFF, 0xFF])) == .badPointer)
    #expect(Self.malformed(owner([1, 97, 0xC0, 12])) == nil)
    // Two pointers at each other: the first is refused as it looks forward.
    #expect(Self.malformed(owner([0xC0, place + 2, 0xC0, place])) == .badPointer)
  }

  @Test func everyTruncationIsNoticed() {
    for length in 0..<Self.usual.count {
      #expect(Self.malformed(Array(Self.usual.prefix(length))) == .truncated)
    }
    #expect(Self.malformed(Self.response([], count: 1)) == .truncated)
  }

  @Test func refusesWhatIsNoAnswer() {
    #expect(Self.malformed(Self.response([], flags: 0x0100)) == .notAResponse)
    for data in [Self.service(0, 0, 1, []), [], Self.service(0, 0, 1, Self.name("h") + [0])] {
      let bytes = Self.response([Self.record(Self.pointer, type: 33, ttl: 1, data), [0]])
      #expect(Self.malformed(bytes) == .badRecord)
    }
    let beyond = Self.record(Self.pointer, type: 33, ttl: 1, Self.service(0, 0, 1, [3, 97]))
    #expect(Self.malformed(Self.response([beyond + [98, 99, 0]])) == .badRecord)
  }

  @Test func noBytesAreTooStrange() {
    var storm = ByteStorm(seed: 8)
    var (good, bad) = (0, 0)
    storm.inputs(
      200_000,
      from: [
        Self.usual, Self.response([]),
        Self.response([
          Self.record(Self.pointer, type: 5, ttl: 5, Self.name("a.b")),
          Self.record(Self.name("a.b"), type: 33, ttl: 60, Self.service(1, 2, 3, Self.name("h"))),
        ]),
      ]
    ) { bytes in
      if let answer = try? Self.read(bytes) {
        good += 1
        #expect(answer.services.allSatisfy { $0.target.utf8.count <= 255 })
      } else {
        bad += 1
      }
    }
    #expect(good > 9 && bad > 9)
  }
}
