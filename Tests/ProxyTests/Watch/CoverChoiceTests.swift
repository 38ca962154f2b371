import Testing

@testable import Proxy

/// Which prefix is covered unasked.
@Suite struct CoverChoiceTests {
  private func key(_ key: String, _ end: String = "", leader: Bool = false) -> GroupKey {
    let range = WatchRange(key: Array(key.utf8), end: Array(end.utf8))
    return GroupKey(range: range, principal: .nobody, requiresLeader: leader)
  }

  private func prefixes(_ choice: CoverChoice, _ group: GroupKey) -> [String] {
    choice.covers(of: group).map { String(decoding: $0.range.key, as: UTF8.self) }
  }

  @Test(arguments: [
    ("a/b/c", ["a/b/", "a/"]), ("a/b/", ["a/"]), ("/a", ["/"]),
    ("a/b/c/d/e/f", ["a/b/c/d/e/", "a/b/c/d/", "a/b/c/", "a/b/"]),
    ("key-17", ["key-"]), ("a.b:c", ["a.b:"]), ("k0017", ["k"]), ("123", []), ("k", []), ("", []), ("a-", []),
  ])
  func prefixesOfAKey(_ text: String, _ expected: [String]) {
    #expect(prefixes(CoverChoice(from: 2, namespace: 0), key(text)) == expected)
  }

  @Test func rangesThatReachOutHaveNone() {
    let choice = CoverChoice(from: 2, namespace: 0)
    #expect(prefixes(choice, key("a/b/", "a/b0")) == ["a/"])
    #expect(prefixes(choice, key("a/b", "a/z")) == ["a/"])
    #expect(prefixes(choice, key("a/b", "b")) == [])
    #expect(prefixes(choice, key("a/b", "\0")) == [])
  }

  @Test func nothingAboveTheNamespace() {
    #expect(prefixes(CoverChoice(from: 2, namespace: 4), key("x/y/a/b")) == ["x/y/a/"])
    #expect(prefixes(CoverChoice(from: 2, namespace: 4), key("x/y/a")) == [])
    #expect(prefixes(CoverChoice(from: 2, namespace: 2), key("nsk12")) == ["nsk"])
  }

  @Test func theLongestWithEnoughComesFirst() throws {
    var choice = CoverChoice(from: 3, namespace: 0)
    for number in 0..<4 { choice.add(key("a/b/\(number)")) }
    for number in 0..<2 { choice.add(key("a/c/\(number)")) }
    let first = try #require(choice.next { _ in true })
    #expect(first == key("a/b/", "a/b0"))
    #expect(choice.next { $0 != first } == key("a/", "a0"))
    #expect(choice.count(key("a/", "a0")) == 6)
    for number in 0..<2 { choice.remove(key("a/b/\(number)")) }
    #expect(choice.next { _ in true } == key("a/", "a0"))
    choice.add(key("a/b/9", leader: true))
    #expect(choice.count(key("a/b/", "a/b0")) == 2, "who asks for a leader has groups of its own")
  }

  @Test func neverIsNever() {
    var choice = CoverChoice(from: 0, namespace: 0)
    for number in 0..<9 { choice.add(key("a/\(number)")) }
    #expect(choice.next { _ in true } == nil)
  }
}
