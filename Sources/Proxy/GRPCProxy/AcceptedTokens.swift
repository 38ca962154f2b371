internal import Reactor

/// Something remembered for each token that a core has met of late. A token takes the place of another one now and then, so
/// what is not found has to be asked for.
struct TokenTable<Value> {
  private struct Entry {
    let token: [UInt8]
    var value: Value
  }

  private var entries: [Entry?] = []

  private func place(_ token: UnsafeRawBufferPointer) -> Int {
    unsafe Int(truncatingIfNeeded: ByteHash.of(token) % UInt64(Limits.tokensACore))
  }

  func find(_ token: UnsafeRawBufferPointer) -> Value? {
    guard !entries.isEmpty, let entry = unsafe entries[place(token)] else { return nil }
    return unsafe entry.token.elementsEqual(token) ? entry.value : nil
  }

  /// Remembers something else for a token, without taking memory; false when nothing was.
  mutating func replace(_ token: UnsafeRawBufferPointer, _ value: Value) -> Bool {
    guard unsafe find(token) != nil else { return false }
    unsafe entries[place(token)]?.value = value
    return true
  }

  mutating func set(_ token: [UInt8], _ value: Value) {
    if entries.isEmpty { entries = Array(repeating: nil, count: Limits.tokensACore) }
    entries[unsafe token.withUnsafeBytes { unsafe place($0) }] = Entry(token: token, value: value)
  }

  mutating func removeAll() { entries.removeAll() }
}

/// The tokens that etcd has accepted of late. Whoever shows another one has to ask etcd first. All are forgotten when a call that
/// passes through changes users, roles or permissions.
struct AcceptedTokens {
  private var known = TokenTable<Instant>()
  private var version: UInt64 = 0

  /// etcd has accepted the token, in answer to what was sent at `asked`.
  mutating func accepted(_ token: UnsafeRawBufferPointer, asked: Instant, _ shared: ProxyShared) {
    refresh(shared)
    guard token.count > 0, unsafe known.find(token).map({ $0 < asked }) ?? true else { return }
    // Each read of a client comes here.
    if unsafe !known.replace(token, asked) { unsafe known.set(Array(token), asked) }
  }

  /// Whether it has, not longer ago than `age`.
  mutating func contains(
    _ token: UnsafeRawBufferPointer, _ now: Instant, within age: Instant.Span, _ shared: ProxyShared
  ) -> Bool {
    refresh(shared)
    return unsafe known.find(token).map { now - $0 <= age } ?? false
  }

  private mutating func refresh(_ shared: ProxyShared) {
    let current = shared.authVersion.load(ordering: .acquiring)
    guard current != version else { return }
    version = current
    known.removeAll()
  }
}
