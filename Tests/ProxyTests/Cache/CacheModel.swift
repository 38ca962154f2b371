import Simulation

@testable import Proxy
@testable import Reactor

/// An etcd as the cache sees it: every state that there ever was.
struct ModelStore {
  struct Item: Equatable {
    let key: UInt8
    let revision: Int64
    let value: Int
  }

  private(set) var states: [[Item]] = [[], []]
  private(set) var times: [UInt64] = [0, 0]
  private(set) var written: [[UInt8]] = [[], []]
  var compacted: Int64 = 0
  var revision: Int64 { Int64(states.count) - 1 }

  mutating func write(_ puts: [UInt8: Int], deletes: [UInt8], at time: UInt64) {
    let revision = self.revision + 1
    var state = states[states.count - 1].filter { puts[$0.key] == nil && !deletes.contains($0.key) }
    state += puts.map { Item(key: $0.key, revision: revision, value: $0.value) }
    states.append(state.sorted { $0.key < $1.key })
    times.append(time)
    written.append(Array(puts.keys) + deletes)
  }

  func items(_ keys: KeySpan, at revision: Int64) -> [Item] {
    states[Int(revision)].filter { Self.contains(keys, $0.key) }
  }

  /// The last revision after `first` and up to `last` that has changed one of the keys.
  func change(_ keys: KeySpan, after first: Int64, upTo last: Int64) -> Int64? {
    guard first < last else { return nil }
    return (first + 1...last).last { revision in
      written[Int(revision)].contains { Self.contains(keys, $0) }
    }
  }

  /// The newest revision there was at a time.
  func revision(at time: UInt64) -> Int64 { Int64((times.firstIndex { $0 > time } ?? times.count) - 1) }

  static func contains(_ keys: KeySpan, _ key: UInt8) -> Bool {
    [key].withUnsafeBytes { bytes in keys.withRaw { $0.reaches(bytes) && !SpanView.isLess(bytes, $0.start) } }
  }
}

/// The watches of a core's keepers, which tell late, fall silent, break and begin anew.
final class ModelSource: CacheKeeperSource {
  enum Mood { case speaks, silent, broken }

  private final class Watch {
    let keeper: CacheKeeper
    /// Everything up to here has been told.
    var told: Int64
    var isConfirmed = false

    init(_ keeper: CacheKeeper) {
      self.keeper = keeper
      told = keeper.position - 1
    }
  }

  private let world: CacheModel
  private var watches: [Watch] = []
  private var pulse = KeeperPulse()
  private var asked: Instant?
  private(set) var mood = Mood.speaks
  /// How far the member is that the watches are on.
  private(set) var applied: Int64 = 0
  let isSound: Bool
  /// Forgets to tell, for a test of the test.
  var drops = 0

  init(_ world: CacheModel, isSound: Bool) {
    self.world = world
    self.isSound = isSound
  }

  var count: Int { watches.count }

  func keep(_ keeper: CacheKeeper) {
    keeper.pulse = pulse
    watches.append(Watch(keeper))
  }

  func release(_ keeper: CacheKeeper) { watches.removeAll { $0.keeper === keeper } }

  func prove(_ keeper: CacheKeeper) { if asked == nil { asked = world.now } }

  /// The member applies what is older than `time`, and perhaps more.
  func catchUp(to time: UInt64) {
    let least = world.store.revision(at: time)
    applied = max(applied, least)
    if world.random.chance(500) {
      applied += Int64(world.random.below(Int(world.store.revision - applied) + 1))
    }
  }

  /// Tells what there is: all of it, or a part.
  func speak(everything: Bool) {
    guard mood == .speaks else { return }
    for watch in watches where everything || world.random.chance(500) { tell(watch, everything) }
    guard let asked, everything || world.random.chance(500) else { return }
    self.asked = nil
    // etcd answers only when all have been told; before some releases it does so at once.
    let isSynced = watches.allSatisfy { !$0.isConfirmed || $0.told >= applied }
    if isSound, !isSynced { return }
    pulse.proven = max(pulse.proven, asked)
    if isSound { pulse.advance(to: applied) }
  }

  private func tell(_ watch: Watch, _ everything: Bool) {
    if !watch.isConfirmed {
      watch.isConfirmed = true
      if watch.keeper.position <= world.store.compacted {
        watches.removeAll { $0 === watch }
        return watch.keeper.ended(compacted: world.store.compacted, now: world.now)
      }
      watch.keeper.confirmed(at: applied, now: world.now)
      if !everything { return }
    }
    guard watch.told < applied else { return }
    let last =
      everything ? applied : watch.told + 1 + Int64(world.random.below(Int(applied - watch.told)))
    if let change = world.store.change(watch.keeper.keys, after: watch.told, upTo: last),
      !world.random.chance(drops)
    {
      watch.keeper.changed(in: change)
    }
    watch.told = last
  }

  func change(_ mood: Mood, tells: Bool = true) {
    guard mood != self.mood else { return }
    if mood == .broken, tells { for watch in watches { watch.keeper.interrupted(world.now) } }
    if self.mood == .broken {
      pulse = KeeperPulse()
      asked = nil
      // Another member.
      applied = max(0, world.store.revision - Int64(world.random.below(4)))
      for watch in watches {
        watch.keeper.pulse = pulse
        watch.told = tells ? watch.keeper.position - 1 : applied
        watch.isConfirmed = false
      }
    }
    self.mood = mood
  }
}
