import Testing

@testable import Proxy

/// What holds for every message, tried with many.
@Suite struct NamespacePropertyTests {
  // MARK: Intervals

  /// An interval as etcd reads it.
  private struct Interval {
    var key: [UInt8]
    var end: [UInt8]

    func contains(_ other: [UInt8]) -> Bool {
      if end.isEmpty { return other == key }
      return !other.lexicographicallyPrecedes(key) && (end == [0] || other.lexicographicallyPrecedes(end))
    }
  }

  private static let alphabet: [UInt8] = [0x00, 0x01, 0x61, 0xFE, 0xFF]

  /// All keys of up to `length` bytes, the empty one left out.
  private static func keys(_ length: Int) -> [[UInt8]] {
    var all: [[UInt8]] = []
    var longest: [[UInt8]] = [[]]
    for _ in 0..<length {
      longest = longest.flatMap { key in alphabet.map { key + [$0] } }
      all += longest
    }
    return all
  }

  private static func text(_ storm: inout ByteStorm, _ sizes: ClosedRange<Int>) -> [UInt8] {
    let size = sizes.lowerBound + storm.below(sizes.count)
    return (0..<size).map { _ in alphabet[storm.below(alphabet.count)] }
  }

  private func interval(_ outcome: Namespace.Outcome, _ method: EtcdMethod) -> Interval? {
    guard case .rewritten(var message) = outcome else { return nil }
    if method == .watch { message = Wire.last(1, in: message) ?? [] }
    if method == .txn { message = Wire.last(1, in: message) ?? [] }
    let numbers = method == .txn ? (3, 64) : (1, 2)
    return Interval(
      key: Wire.last(numbers.0, in: message) ?? [], end: Wire.last(numbers.1, in: message) ?? [])
  }

  /// In the rewritten interval lies exactly what lies in the original one, with the prefix, and nothing else.
  @Test func intervalsHoldWhatTheyHeld() {
    var storm = ByteStorm(seed: 21)
    let all = Self.keys(4)
    for round in 0..<800 {
      let space = Namespace(prefix: Self.text(&storm, 1...2), strict: round % 2 == 0)
      var original = Interval(key: Self.text(&storm, 0...2), end: Self.text(&storm, 0...2))
      let fields = Wire.field(1, original.key) + Wire.field(2, original.end)
      let compare = Wire.field(3, original.key) + Wire.field(64, original.end)
      for (method, message) in [
        (EtcdMethod.range, fields), (.deleteRange, fields), (.watch, Wire.field(1, fields)),
        (.txn, Wire.field(1, compare)),
      ] {
        let outcome = space.request(method, message)
        if original.key.isEmpty {
          guard method == .watch else {
            #expect(outcome == .refused(.invalidArgument, "etcdserver: key is not provided"))
            continue
          }
          original.key = [0]
        }
        guard let rewritten = interval(outcome, method) else {
          Issue.record("\(method) of \(original) became \(outcome)")
          continue
        }
        defer { if fields.starts(with: [0x0A, 0]) { original.key = [] } }
        for key in all {
          let rest = Array(key.dropFirst(space.prefix.count))
          let isInside = key.starts(with: space.prefix) && !rest.isEmpty && original.contains(rest)
          guard rewritten.contains(key) != isInside else { continue }
          Issue.record("\(method) \(original) in \(space.prefix) became \(rewritten), wrong for \(key)")
          return
        }
      }
    }
  }

  // MARK: Round trips

  /// Random messages, the same ones from the same seed for every prefix.
  private struct Author {
    var storm: ByteStorm
    let prefix: [UInt8]
    let end: [UInt8]

    mutating func times(_ most: Int, _ body: (inout Author) -> [UInt8]) -> [UInt8] {
      (0..<storm.below(most + 1)).flatMap { _ in body(&self) }
    }

    mutating func key() -> [UInt8] {
      prefix + [UInt8(storm.below(256))] + storm.noise(upTo: storm.below(3) * 100)
    }

    mutating func rangeEnd(_ number: UInt64) -> [UInt8] {
      switch storm.below(3) {
      case 0: []
      case 1: Wire.field(number, end)
      default: Wire.field(number, key() + [7])
      }
    }

    mutating func other() -> [UInt8] {
      switch storm.below(4) {
      case 0: Wire.field(20 + UInt64(storm.below(9)), storm.noise(upTo: 20))
      case 1: Wire.field(20 + UInt64(storm.below(3000)), number: storm.next())
      default: []
      }
    }

    mutating func range() -> [UInt8] { other() + Wire.field(1, key()) + rangeEnd(2) + other() }

    mutating func put() -> [UInt8] {
      other() + Wire.field(1, key()) + Wire.field(2, storm.noise(upTo: 300)) + other()
    }

    mutating func transaction(_ depth: Int) -> [UInt8] {
      times(3) { Wire.field(1, $0.other() + Wire.field(3, $0.key()) + $0.rangeEnd(64)) }
        + times(3) { Wire.field(2, $0.operation(depth)) } + other()
        + times(3) { Wire.field(3, $0.operation(depth)) }
    }

    mutating func operation(_ depth: Int) -> [UInt8] {
      switch storm.below(depth > 0 ? 4 : 3) {
      case 0: other() + Wire.field(1, range())
      case 1: other() + Wire.field(2, put())
      case 2: other() + Wire.field(3, range())
      default: Wire.field(4, transaction(depth - 1))
      }
    }

    mutating func keyValue() -> [UInt8] {
      other() + Wire.field(1, key()) + Wire.field(5, storm.noise(upTo: 300)) + other()
    }

    mutating func rangeAnswer() -> [UInt8] { other() + times(5) { Wire.field(2, $0.keyValue()) } + other() }

    mutating func transactionAnswer(_ depth: Int) -> [UInt8] {
      other() + times(4) { Wire.field(3, $0.operationAnswer(depth)) }
    }

    mutating func operationAnswer(_ depth: Int) -> [UInt8] {
      switch storm.below(depth > 0 ? 4 : 3) {
      case 0: Wire.field(1, rangeAnswer())
      case 1: Wire.field(2, Wire.field(2, keyValue()))
      case 2: other() + Wire.field(3, times(4) { Wire.field(3, $0.keyValue()) })
      default: Wire.field(4, transactionAnswer(depth - 1))
      }
    }

    mutating func watchAnswer() -> [UInt8] {
      other()
        + times(6) { author in
          let key = author.key()
          return Wire.field(
            11, Wire.field(2, Wire.field(1, key)) + Wire.field(3, Wire.field(1, key) + author.other()))
        }
    }
  }

  private func expectSame(_ outcome: Namespace.Outcome, _ before: [UInt8], _ after: [UInt8]) {
    if outcome != (before == after ? .unchanged : .rewritten(after)) {
      // Messages without keys may be written again as they were.
      #expect(before == after && outcome == .rewritten(after))
    }
  }

  @Test(arguments: [[0x6E], [0x61, 0xFF], [0xFF, 0xFF], [UInt8](repeating: 0x70, count: 150)] as [[UInt8]])
  func whatGoesInComesOut(prefix: [UInt8]) {
    let space = Namespace(prefix: prefix, strict: false)
    for seed: UInt64 in 0..<150 {
      func pair(_ body: (inout Author) -> [UInt8]) -> (plain: [UInt8], inside: [UInt8]) {
        var plain = Author(storm: ByteStorm(seed: seed), prefix: [], end: [0])
        var inside = Author(storm: ByteStorm(seed: seed), prefix: prefix, end: space.end)
        return (body(&plain), body(&inside))
      }
      let requests: [(EtcdMethod, (inout Author) -> [UInt8])] = [
        (.range, { $0.range() }), (.put, { $0.put() }), (.deleteRange, { $0.range() }),
        (.txn, { $0.transaction(5) }), (.watch, { Wire.field(1, $0.range()) }),
      ]
      for (method, body) in requests {
        let messages = pair(body)
        expectSame(space.request(method, messages.plain), messages.plain, messages.inside)
      }
      let answers: [(EtcdMethod, (inout Author) -> [UInt8])] = [
        (.range, { $0.rangeAnswer() }), (.rangeStream, { Wire.field(1, $0.rangeAnswer()) }),
        (.txn, { $0.transactionAnswer(5) }), (.watch, { $0.watchAnswer() }),
        (.deleteRange, { author in author.times(4) { Wire.field(3, $0.keyValue()) } }),
      ]
      for (method, body) in answers {
        let messages = pair(body)
        expectSame(space.response(method, messages.inside), messages.inside, messages.plain)
      }
    }
  }

  // MARK: Damage

  @Test func prefixesOfMessagesDoNoHarm() {
    for vector in NamespaceVectors.requests + NamespaceVectors.responses {
      for size in 0...vector.prefixed.count {
        let message = Array(vector.prefixed.prefix(size))
        expectIsolated(vector.method, message)
      }
    }
  }

  @Test func damagedMessagesStayInside() {
    var storm = ByteStorm(seed: 8)
    let vectors = NamespaceVectors.requests + NamespaceVectors.responses
    for vector in vectors {
      storm.inputs(600, from: [vector.plain, vector.prefixed]) { expectIsolated(vector.method, $0) }
    }
  }

  /// Whatever is in a message that passes: every key in it is inside.
  private func expectIsolated(_ method: EtcdMethod, _ message: [UInt8]) {
    let spaces = [NamespaceTests.space, Namespace(prefix: Array("ns/".utf8), strict: true)]
    for space in spaces {
      _ = space.response(method, message)
      switch space.request(method, message) {
      case .rewritten(let sent), .lease(_, .some(let sent)):
        #expect(isInside(sent, method), "\(method) \(message) became \(sent)")
      case .unchanged: #expect(!method.carriesKeys || isInside(message, method), "\(method) \(message)")
      case .refused, .malformed, .lease(_, nil): break
      }
    }
  }

  private func isInside(_ message: [UInt8], _ method: EtcdMethod) -> Bool {
    switch method {
    case .range, .rangeStream, .deleteRange: isInside(message, keys: [1], ends: [2])
    case .put, .unlock, .lock, .campaign, .leader, .observe: isInside(message, keys: [1], ends: [])
    case .proclaim, .resign: inner(1, message).allSatisfy { isInside($0, keys: [1, 2], ends: []) }
    case .watch:
      inner(1, message).allSatisfy { isInside($0, keys: [1], ends: [2]) && Wire.last(1, in: $0) != [] }
    case .txn: isTransactionInside(message)
    default: true
    }
  }

  private func isTransactionInside(_ message: [UInt8]) -> Bool {
    inner(1, message).allSatisfy { isInside($0, keys: [3], ends: [64]) }
      && (inner(2, message) + inner(3, message)).allSatisfy { operation in
        inner(1, operation).allSatisfy { isInside($0, keys: [1], ends: [2]) }
          && inner(2, operation).allSatisfy { isInside($0, keys: [1], ends: []) }
          && inner(3, operation).allSatisfy { isInside($0, keys: [1], ends: [2]) }
          && inner(4, operation).allSatisfy { isTransactionInside($0) }
      }
  }

  private func inner(_ number: Int, _ message: [UInt8]) -> [[UInt8]] {
    (Wire.fields(message) ?? []).filter { $0.number == number && $0.wire == .bytes }.map(\.bytes)
  }

  private func isInside(_ message: [UInt8], keys: [Int], ends: [Int]) -> Bool {
    guard let fields = Wire.fields(message) else { return false }
    return fields.allSatisfy { field in
      guard field.wire == .bytes, !field.bytes.isEmpty else { return true }
      let begins = field.bytes.starts(with: "ns/".utf8)
      if keys.contains(field.number) { return begins }
      return !ends.contains(field.number) || begins || field.bytes == Array("ns0".utf8)
    }
  }
}
