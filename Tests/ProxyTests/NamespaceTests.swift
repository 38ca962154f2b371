import Testing

@testable import Proxy

@Suite struct NamespaceTests {
  static let space = Namespace(prefix: Array("ns/".utf8), strict: false)
  private var space: Namespace { Self.space }
  private static let emptyKey = Namespace.Outcome.refused(.invalidArgument, "etcdserver: key is not provided")

  // MARK: Against another implementation

  @Test(arguments: NamespaceVectors.requests) func rewritesRequests(vector: NamespaceVectors.Vector) {
    #expect(space.request(vector.method, vector.plain) == .rewritten(vector.prefixed))
  }

  @Test(arguments: NamespaceVectors.responses) func stripsAnswers(vector: NamespaceVectors.Vector) {
    let unchanged = vector.plain == vector.prefixed
    #expect(
      space.response(vector.method, vector.prefixed) == (unchanged ? .unchanged : .rewritten(vector.plain)))
  }

  @Test func stripsStreamedRanges() throws {
    let vector = try #require(NamespaceVectors.responses.first)
    #expect(
      space.response(.rangeStream, Wire.field(1, vector.prefixed)) == .rewritten(Wire.field(1, vector.plain)))
  }

  @Test func methodsWithoutKeysPass() {
    for method in EtcdMethod.allCases where !method.carriesKeys {
      #expect(space.request(method, [1, 2, 3]) == .unchanged)
      #expect(space.response(method, [1, 2, 3]) == .unchanged)
    }
    #expect(space.request(.leaseTimeToLive, [0x08, 5]) == .unchanged)
    for strict in [true, false] {
      let none = Namespace(prefix: [], strict: strict)
      for method in EtcdMethod.allCases {
        #expect(none.request(method, [1]) == .unchanged)
        #expect(none.response(method, [1]) == .unchanged)
      }
    }
  }

  // MARK: Ends

  @Test(arguments: [
    ("61", "62"), ("6100", "6101"), ("61ff", "62"), ("61ffff", "62"), ("ff", "00"), ("ffff", "00"),
    ("00", "01"), ("fffe", "ffff"),
  ])
  func endsAreCut(prefix: String, end: String) {
    let space = Namespace(prefix: NamespaceVectors.bytes(prefix), strict: false)
    #expect(space.end == NamespaceVectors.bytes(end))
    let request = Wire.field(1, "k") + Wire.field(2, [0])
    #expect(
      space.request(.range, request)
        == .rewritten(Wire.field(1, space.prefix + [0x6B]) + Wire.field(2, space.end)))
  }

  // MARK: Empty keys

  @Test func emptyKeysAreRefused() {
    let key = Wire.field(1, [])
    for method: EtcdMethod in [.range, .rangeStream, .put, .deleteRange, .unlock] {
      for request in [[], key, Wire.field(1, "a") + key, Wire.field(2, [0])] {
        #expect(space.request(method, request) == Self.emptyKey)
      }
      #expect(space.request(method, key + Wire.field(1, "a")) == .rewritten(key + Wire.field(1, "ns/a")))
    }
    for method: EtcdMethod in [.proclaim, .resign] {
      #expect(space.request(method, Wire.field(1, Wire.field(1, "e"))) == Self.emptyKey)
      // Without a leader etcd has an error of its own.
      #expect(space.request(method, []) == .unchanged)
    }
  }

  @Test func emptyKeysInTransactionsAreRefused() {
    #expect(space.request(.txn, Wire.field(1, [])) == Self.emptyKey)
    #expect(space.request(.txn, Wire.field(1, Wire.field(64, [0]))) == Self.emptyKey)
    for branch: UInt64 in [2, 3] {
      for member: UInt64 in [1, 2, 3] {
        #expect(space.request(.txn, Wire.field(branch, Wire.field(member, []))) == Self.emptyKey)
      }
      let inner = Wire.field(4, Wire.field(2, Wire.field(2, Wire.field(2, "v"))))
      #expect(space.request(.txn, Wire.field(branch, inner)) == Self.emptyKey)
    }
  }

  @Test func emptyOperationsAreLeftToEtcd() {
    #expect(space.request(.txn, Wire.field(2, [])) == .rewritten(Wire.field(2, [])))
    #expect(space.request(.txn, []) == .unchanged)
  }

  @Test func watchesTakeTheEmptyKeyForTheSmallest() {
    let first = Array("ns/\0".utf8)
    #expect(space.request(.watch, Wire.field(1, [])) == .rewritten(Wire.field(1, Wire.field(1, first))))
    let open = Wire.field(1, Wire.field(1, []) + Wire.field(2, [0]))
    #expect(
      space.request(.watch, open)
        == .rewritten(Wire.field(1, Wire.field(1, []) + Wire.field(2, "ns0") + Wire.field(1, first))))
  }

  @Test func namesMayBeEmpty() {
    for method: EtcdMethod in [.lock, .campaign, .leader, .observe] {
      #expect(space.request(method, []) == .rewritten(Wire.field(1, "ns/")))
      #expect(space.request(method, Wire.field(1, [])) == .rewritten(Wire.field(1, "ns/")))
    }
    let leader = Wire.field(1, Wire.field(2, "e/1"))
    #expect(
      space.request(.resign, leader)
        == .rewritten(Wire.field(1, Wire.field(2, "ns/e/1") + Wire.field(1, "ns/"))))
    let answer = Wire.field(2, Wire.field(1, "ns/") + Wire.field(2, "ns//1"))
    #expect(space.response(.campaign, answer) == .rewritten(Wire.field(2, Wire.field(2, "/1"))))
  }

  // MARK: What may be written in several ways

  @Test func unknownFieldsStay() {
    let unknown = Wire.field(99, "x") + Wire.field(98, number: 7) + [0x9B, 0x06, 0x08, 1, 0x9C, 0x06]
    #expect(
      space.request(.put, unknown + Wire.field(1, "k") + unknown)
        == .rewritten(unknown + Wire.field(1, "ns/k") + unknown))
    let operation = Wire.field(9, Wire.field(1, "k"))
    #expect(space.request(.txn, Wire.field(2, operation)) == .rewritten(Wire.field(2, operation)))
    // A known number of another type is no known field.
    let odd = Wire.field(1, number: 5) + Wire.field(2, number: 6)
    #expect(space.request(.range, odd + Wire.field(1, "k")) == .rewritten(odd + Wire.field(1, "ns/k")))
    let kv = Wire.field(1, "ns/k") + unknown
    #expect(
      space.response(.put, unknown + Wire.field(2, kv) + unknown)
        == .rewritten(unknown + Wire.field(2, Wire.field(1, "k") + unknown) + unknown))
  }

  @Test func theLastMemberOfAChoiceCounts() {
    let put = Wire.field(2, Wire.field(1, "p"))
    let range = Wire.field(1, Wire.field(1, "r"))
    #expect(
      space.request(.txn, Wire.field(2, range + put))
        == .rewritten(Wire.field(2, Wire.field(2, Wire.field(1, "ns/p")))))
    // The member that does not count may be wrong.
    #expect(
      space.request(.txn, Wire.field(2, Wire.field(1, []) + put))
        == .rewritten(Wire.field(2, Wire.field(2, Wire.field(1, "ns/p")))))
    // Set once more after another one, it has lost what it had before.
    #expect(
      space.request(.txn, Wire.field(2, put + range + Wire.field(2, Wire.field(2, "v")))) == Self.emptyKey)
    let cancel = Wire.field(2, Wire.field(1, number: 7))
    #expect(space.request(.watch, Wire.field(1, Wire.field(1, "w")) + cancel) == .rewritten(cancel))
  }

  @Test func partsOfAMessageAreJoined() {
    let parts = Wire.field(2, Wire.field(1, "p")) + Wire.field(77, "u") + Wire.field(2, Wire.field(2, "v"))
    let whole = Wire.field(77, "u") + Wire.field(2, Wire.field(1, "ns/p") + Wire.field(2, "v"))
    #expect(space.request(.txn, Wire.field(2, parts)) == .rewritten(Wire.field(2, whole)))
    let watch = Wire.field(1, Wire.field(1, "w")) + Wire.field(1, Wire.field(2, "x"))
    #expect(
      space.request(.watch, watch)
        == .rewritten(Wire.field(1, Wire.field(1, "ns/w") + Wire.field(2, "ns/x"))))
    let leader = Wire.field(1, Wire.field(1, "e")) + Wire.field(2, "v") + Wire.field(1, Wire.field(2, "e/1"))
    #expect(
      space.request(.proclaim, leader)
        == .rewritten(Wire.field(1, Wire.field(1, "ns/e") + Wire.field(2, "ns/e/1")) + Wire.field(2, "v")))
  }

  @Test func transactionsHaveADepth() {
    func nested(_ depth: Int, _ prefix: String) -> [UInt8] {
      var message = Wire.field(2, Wire.field(2, Wire.field(1, prefix + "k")))
      for _ in 0..<depth { message = Wire.field(2, Wire.field(4, message)) }
      return message
    }
    let most = Limits.nestedTransactions
    #expect(space.request(.txn, nested(most, "")) == .rewritten(nested(most, "ns/")))
    #expect(
      space.request(.txn, nested(most + 1, ""))
        == .refused(.invalidArgument, "etcdserver: too many operations in txn request"))
    #expect(space.request(.txn, nested(3000, "")) != .malformed)
    func answer(_ depth: Int, _ prefix: String) -> [UInt8] {
      var message = Wire.field(3, Wire.field(1, Wire.field(2, Wire.field(1, prefix + "k"))))
      for _ in 0..<depth { message = Wire.field(3, Wire.field(4, message)) }
      return message
    }
    #expect(space.response(.txn, answer(most, "ns/")) == .rewritten(answer(most, "")))
    #expect(space.response(.txn, answer(3000, "ns/")) == .malformed)
  }

  @Test func malformedMessagesAreTold() {
    let cut: [UInt8] = [0x0A, 5, 0x61]
    for method: EtcdMethod in [.range, .put, .txn, .watch, .lock, .proclaim] {
      #expect(space.request(method, Wire.field(9, "x") + cut) == .malformed)
    }
    #expect(space.request(.txn, Wire.field(2, cut)) == .malformed)
    #expect(space.request(.txn, Wire.field(2, Wire.field(1, cut))) == .malformed)
    #expect(space.response(.range, Wire.field(2, cut)) == .malformed)
  }

  // MARK: Keys outside in answers

  @Test func keysOutsideAreLeftOut() {
    func kv(_ key: String) -> [UInt8] { Wire.field(1, key) + Wire.field(5, "v") }
    for stranger in ["", "ns", "ns/", "nt/a", "a", "ms/long"] {
      let range = Wire.field(2, kv("ns/a")) + Wire.field(2, kv(stranger)) + Wire.field(2, kv("ns/b"))
      #expect(
        space.response(.range, range) == .rewritten(Wire.field(2, kv("a")) + Wire.field(2, kv("b"))),
        "\(stranger)")
      #expect(space.response(.put, Wire.field(2, kv(stranger))) == .rewritten([]))
      let event = Wire.field(11, Wire.field(1, number: 1) + Wire.field(2, kv(stranger)))
      #expect(
        space.response(.watch, event + Wire.field(2, number: 5)) == .rewritten(Wire.field(2, number: 5)))
      let mixed = Wire.field(11, Wire.field(2, kv("ns/a")) + Wire.field(3, kv(stranger)))
      #expect(space.response(.watch, mixed) == .rewritten([]))
      #expect(
        space.response(.leaseTimeToLive, Wire.field(5, stranger) + Wire.field(5, "ns/k"))
          == .rewritten(Wire.field(5, "k")))
      for answer in [
        (EtcdMethod.lock, Wire.field(2, stranger)), (.leader, Wire.field(2, kv(stranger))),
        (.campaign, Wire.field(2, Wire.field(1, "ns/e") + Wire.field(2, stranger))),
      ] {
        guard case .refused(.internal, _) = space.response(answer.0, answer.1) else {
          Issue.record("\(answer.0) let \(stranger) through")
          continue
        }
      }
    }
    // A key without which the message was sent is not inside either.
    #expect(space.response(.range, Wire.field(2, Wire.field(5, "v"))) == .rewritten([]))
    #expect(
      space.response(.range, Wire.field(2, Wire.field(1, "ns/a") + Wire.field(1, "x"))) == .rewritten([]))
  }
}
