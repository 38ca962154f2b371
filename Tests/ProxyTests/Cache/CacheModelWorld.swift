import Simulation

@testable import Proxy
@testable import Reactor

/// Two cores' caches between clients and a store, in a world made from a seed.
///
/// It plays the part of the core: which revision a client has seen, when reads are sent, whom writes are told. What it checks
/// is what clients may rely on.
final class CacheModel {
  /// Mistakes that the checker has to find.
  enum Mistake: CaseIterable {
    case none, forgetsOwnWrites, forgetsEvents, sharesPrincipals, forgetsLoss, forgetsWhatWasSeen,
      insertsLate,
      forgetsCompaction, forgetsFlush
  }

  struct Client {
    let core: Int
    let principal: Principal
    var shown: Int64 = 0
  }

  private struct Read {
    let client: Int
    let keys: KeySpan
    let fixed: Int64
    let isSerializable: Bool
    let request: [UInt8]
    let sent: (at: Instant, sequence: UInt64)
    let rights: Int
    var executed: Int64?
  }

  private struct Write {
    let client: Int
    let keys: [KeySpan]
    let puts: [UInt8: Int]
    let deletes: [UInt8]
    /// It happens, and the client is told so.
    let happens: Bool
    let isTold: Bool
    let hasKeys: Bool
    var revision: Int64?
    var isAnswered = false
  }

  var random: SimRandom
  var store = ModelStore()
  private(set) var now = Instant(nanoseconds: 1_000_000_000)
  private(set) var failure: String?
  private(set) var hits = 0
  private let mistake: Mistake
  private let settings: CacheSettings
  private var caches: [RangeCache] = []
  private var sources: [ModelSource] = []
  private let counters = CacheCounters(cores: 2)
  private var clients: [Client] = []
  private var reads: [Read] = []
  private var writes: [Write] = []
  /// What one core has still to be told: by whom, the keys (none for everything) and the revision.
  private var mail: [(core: Int, keys: KeySpan?, revision: Int64?)] = []
  private var known: [[(keys: KeySpan?, revision: Int64)]] = [[], []]
  private var rights = 0
  private var value = 0
  private let pool = BlockPool()

  init(seed: UInt64, _ mistake: Mistake = .none) {
    random = SimRandom(seed: seed)
    self.mistake = mistake
    var settings = CacheSettings()
    settings.maxStaleness = random.pick([.zero, .milliseconds(200), .seconds(1)])
    settings.mode = random.chance(800) ? .watch : .etcd
    settings.bytes = random.pick([20_000, 1 << 20])
    self.settings = settings
    let isSound = random.chance(700)
    for core in 0..<2 {
      guard let cache = try? RangeCache(settings, core: core, counters: counters, seed: seed) else {
        continue
      }
      let source = ModelSource(self, isSound: isSound)
      source.drops = mistake == .forgetsEvents ? 300 : 0
      cache.source = source
      caches.append(cache)
      sources.append(source)
    }
    clients = (0..<6).map { number in
      Client(core: number % 2, principal: Principal(number: UInt32(number / 2 % 2 + 1)))
    }
  }

  func run(_ steps: Int) -> String? {
    for _ in 0..<steps where failure == nil { step() }
    return failure
  }

  private func step() {
    switch random.below(100) {
    case 0..<45: read(random.below(clients.count))
    case 45..<55: executeRead()
    case 55..<65: completeRead()
    case 65..<70: beginWrite(random.below(clients.count))
    case 70..<76: proceedWrite()
    case 76..<78: writeDirectly()
    case 78..<84: if !mail.isEmpty { deliverMail(random.below(mail.count)) }
    case 84..<90: sources[random.below(2)].speak(everything: random.chance(300))
    case 90..<92:
      sources[random.below(2)].change(
        random.pick([.speaks, .speaks, .silent, .broken]), tells: mistake != .forgetsLoss)
    case 92: if random.chance(300) { compact() }
    case 93: if random.chance(200) { flush() }
    default: pass(UInt64(1 + random.below(random.pick([20, 200, 700]))) * 1_000_000)
    }
  }

  private func pass(_ nanoseconds: UInt64) {
    now = now + Instant.Span(nanoseconds: nanoseconds)
    // Nothing is later than a tenth of a second, unless it is lost.
    let past = now.nanoseconds - 100_000_000
    for (core, source) in sources.enumerated() {
      source.catchUp(to: past)
      source.speak(everything: true)
      if random.chance(300) { caches[core].sweep(now) }
      _ = caches[core].proveWanted(since: Instant(nanoseconds: past))
    }
    while !mail.isEmpty { deliverMail(0) }
  }

  // MARK: Reads

  private func makeSpan() -> (key: [UInt8], end: [UInt8]) {
    let key = UInt8(97 + random.below(3))
    switch random.below(7) {
    case 0, 1, 2: return ([key], [])
    case 3: return ([key], [key + 2])
    case 4, 5: return ([97], [0])
    default: return ([0], [0])
    }
  }

  private func read(_ number: Int) {
    let client = clients[number]
    let cache = caches[client.core]
    let (key, end) = makeSpan()
    let isFixed = random.chance(150) && store.revision > 2
    let fixed = isFixed ? max(2, store.revision / 8 * 8) : 0
    let isSerializable = random.chance(850)
    var request = ByteBuffer(pool)
    request.appendField(1, key)
    request.appendField(2, end)
    request.appendField(4, fixed)
    let bytes = Array(request.bytes)
    let principal = mistake == .sharesPrincipals ? Principal(number: 1) : client.principal
    bytes.withUnsafeBytes { message in
      guard let query = RangeQuery(message), let span = query.span,
        let lookup = cache.prepare(query, principal)
      else { return fail("a read cannot be read") }
      let keys = KeySpan(span)
      let shown = mistake == .forgetsWhatWasSeen ? 0 : client.shown
      let none = UnsafeRawBufferPointer(start: nil, count: 0)
      if isSerializable, let hit = cache.look(lookup, shown: shown, token: none, now) {
        hits += 1
        cache.withMessage(hit) { check($0, hit, number, keys, fixed) }
        return
      }
      guard reads.count < 8 else { return }
      let prepared = cache.withKey { Array($0) }
      reads.append(
        Read(
          client: number, keys: keys, fixed: fixed, isSerializable: isSerializable, request: prepared,
          sent: (now, mistake == .insertsLate ? .max : cache.sequence), rights: rights))
    }
  }

  private func executeRead() {
    guard let place = reads.indices.randomElement(using: &random) else { return }
    var revision = store.revision
    if reads[place].isSerializable {
      revision = max(store.revision(at: now.nanoseconds - 100_000_000), revision - Int64(random.below(4)))
    }
    reads[place].executed = max(0, revision)
  }

  private func completeRead() {
    guard let place = reads.indices.randomElement(using: &random), var executed = reads[place].executed else {
      return
    }
    let read = reads.remove(at: place)
    let client = clients[read.client]
    // The core makes it again, as a linearizable one.
    if executed < client.shown { executed = store.revision }
    guard read.fixed >= (read.fixed > 0 ? store.compacted : 0), read.fixed <= executed, executed > 0 else {
      return
    }
    clients[read.client].shown = max(client.shown, executed)
    let message = answer(
      read.keys, at: read.fixed > 0 ? read.fixed : executed, header: executed, client.principal, read.rights)
    message.withUnsafeBytes { message in
      read.request.withUnsafeBytes { key in
        caches[client.core].insert(key: key, message: message, sent: read.sent, now)
      }
    }
  }

  /// What etcd would answer: values tell whose they are, and what the rights were.
  private func answer(
    _ keys: KeySpan, at revision: Int64, header: Int64, _ principal: Principal, _ rights: Int
  ) -> [UInt8] {
    var message = ByteBuffer(pool)
    ResponseHeader(clusterID: 1, memberID: 2, revision: header, raftTerm: 3).encode(into: &message)
    let items = store.items(keys, at: revision)
    for item in items {
      let mark = message.openMessage(2)
      message.appendField(1, [item.key])
      message.appendField(3, item.revision)
      message.appendField(5, "\(principal.number).\(rights).\(item.value)")
      message.closeMessage(mark)
    }
    message.appendField(4, Int64(items.count))
    return Array(message.bytes)
  }

  // MARK: Checks

  private func check(
    _ bytes: UnsafeRawBufferPointer, _ hit: RangeCache.Hit, _ number: Int, _ keys: KeySpan, _ fixed: Int64
  ) {
    let client = clients[number]
    guard GRPCMessage.complete(bytes) == bytes.count else { return fail("the message is cut") }
    let message = Array(bytes[GRPCMessage.prefix...])
    let revision = fixed > 0 ? fixed : hit.revision
    guard hit.revision <= store.revision else { return fail("revision \(hit.revision) is not there yet") }
    let expected = answer(keys, at: revision, header: hit.revision, client.principal, rights)
    if message != expected { return fail("a wrong answer for client \(number) at \(revision)") }
    if hit.revision < client.shown {
      return fail("client \(number) reads backwards: \(hit.revision) after \(client.shown)")
    }
    clients[number].shown = max(client.shown, hit.revision)
    if fixed > 0 {
      if fixed < store.compacted { fail("revision \(fixed) is gone") }
      return
    }
    for write in known[client.core] where write.revision > hit.revision {
      let touches = write.keys.map { keys.withRaw($0.overlaps) } ?? true
      if touches, store.change(keys, after: hit.revision, upTo: write.revision) != nil {
        return fail("the write of \(write.revision) is missing at \(hit.revision)")
      }
    }
    let bound = settings.maxStaleness.nanoseconds + Limits.keeperSilence.nanoseconds + 200_000_000
    let due = store.revision(at: now.nanoseconds - min(now.nanoseconds, bound))
    if let change = store.change(keys, after: hit.revision, upTo: due) {
      fail("the change of \(change) is not shown for too long")
    }
  }

  private func fail(_ text: String) { if failure == nil { failure = text } }

  // MARK: Writes

  private func makeWrite(_ client: Int) -> Write {
    var puts: [UInt8: Int] = [:]
    var deletes: [UInt8] = []
    var keys: [KeySpan] = []
    for _ in 0..<1 + random.below(2) {
      let key = UInt8(97 + random.below(5))
      if random.chance(700) {
        value += 1
        puts[key] = value
        keys.append(KeySpan(prefix: [key]).single(key))
      } else {
        let last = key + UInt8(random.below(3))
        deletes += (key...last).filter { puts[$0] == nil }
        keys.append(KeySpan(prefix: [key]).through(key, last))
      }
    }
    return Write(
      client: client, keys: keys, puts: puts, deletes: deletes, happens: random.chance(900),
      isTold: random.chance(850), hasKeys: random.chance(900))
  }

  private func beginWrite(_ client: Int) { if writes.count < 6 { writes.append(makeWrite(client)) } }

  /// It happens in the store, the client is told, in this order or, where nobody knows what becomes of it, in the other.
  private func proceedWrite() {
    guard let place = writes.indices.randomElement(using: &random) else { return }
    let write = writes[place]
    if write.revision == nil, write.happens, write.isTold || random.chance(500) {
      store.write(write.puts, deletes: write.deletes, at: now.nanoseconds)
      writes[place].revision = store.revision
      if write.isAnswered { writes.remove(at: place) }
      return
    }
    if write.isAnswered {
      if random.chance(300) { writes.remove(at: place) }
      return
    }
    let revision = write.isTold && write.happens ? write.revision : nil
    tell(write, revision)
    if let revision { clients[write.client].shown = max(clients[write.client].shown, revision) }
    writes[place].isAnswered = true
    if write.revision != nil || !write.happens { writes.remove(at: place) }
  }

  private func tell(_ write: Write, _ revision: Int64?) {
    let core = clients[write.client].core
    for keys in write.hasKeys ? write.keys.map({ Optional($0) }) : [nil] {
      mail.append((core, keys, revision))
      deliverMail(mail.count - 1)
      mail.append((1 - core, keys, revision))
    }
  }

  private func deliverMail(_ place: Int) {
    let news = mail.remove(at: place)
    if let revision = news.revision { known[news.core].append((news.keys, revision)) }
    known[news.core] = known[news.core].suffix(50)
    guard mistake != .forgetsOwnWrites || random.chance(700) else { return }
    if let keys = news.keys {
      keys.withRaw { caches[news.core].wrote($0, news.revision) }
    } else {
      caches[news.core].wroteSomething(news.revision)
    }
  }

  /// By somebody else, or by a lease that ends.
  private func writeDirectly() {
    let write = makeWrite(0)
    store.write(write.puts, deletes: write.deletes, at: now.nanoseconds)
  }

  private func compact() {
    guard store.revision > 3 else { return }
    store.compacted = max(store.compacted, store.revision - Int64(random.below(10)))
    if mistake == .forgetsCompaction { return }
    for cache in caches { cache.compact(to: store.compacted) }
  }

  private func flush() {
    rights += 1
    // Answers that are under way are of the time before.
    if mistake != .forgetsFlush { for cache in caches { cache.flush() } }
  }
}

extension KeySpan {
  func single(_ key: UInt8) -> KeySpan {
    [key].withUnsafeBytes { KeySpan(SpanView(.single, $0, UnsafeRawBufferPointer(start: nil, count: 0))) }
  }

  func through(_ first: UInt8, _ last: UInt8) -> KeySpan {
    [first].withUnsafeBytes { start in
      [last + 1].withUnsafeBytes { end in KeySpan(SpanView(.bounded, start, end)) }
    }
  }
}
