internal import Reactor

/// What the cache has to do with a call.
struct ReadState {
  enum Stage {
    /// Nothing: it is no read, or not one for the cache.
    case none
    /// Its message has not come in full.
    case gathering
    /// It waits to be told how far etcd is (`ReadIndexes`), still in the client's words.
    case indexing
    /// It goes to etcd, alone or with others.
    case asking
  }

  var stage = Stage.none
  var principal = Principal.nobody
  var isSerializable = false
  /// The answer was older than what the client has seen, so the read has been made linearizable.
  var isLinearized = false
  /// The revision that is asked for, 0 for the newest.
  var fixed: Int64 = 0
  /// The read under way that brings the answer, and whether it is this call's.
  var flight = Handle.none
  var leads = false
}

/// What a core keeps for reads.
final class Reads {
  let cache: RangeCache
  let flights: ReadFlights
  let feeds = KeeperFeeds()
  let indexes = ReadIndexes()
  /// Reads that are over, and those whose leader has gone: for the end of the turn.
  var finished: [FinishedRead] = []
  var orphaned: [Handle] = []
  /// A keeper has told something that reads may wait for.
  var hasNews = false
  var proofTimer = TimerWheel.Timer.none
  var lastProofs = Instant(nanoseconds: 0)

  var isOn: Bool { cache.settings.mode != .off }

  /// Something is left to be settled this turn.
  var isUnsettled: Bool { !orphaned.isEmpty || !finished.isEmpty || indexes.isUnsettled }

  init(_ shared: ProxyShared, core: Int, seed: UInt64, _ pool: BlockPool) throws(SystemError) {
    let settings = CacheSettings(shared.options, cores: shared.counters.cores)
    cache = try RangeCache(settings, core: core, counters: shared.cacheCounters, seed: seed)
    flights = try ReadFlights(pool)
  }

  /// The core is there.
  func attach(_ core: ProxyCore) {
    feeds.core = core
    indexes.core = core
    cache.source = feeds
  }
}

/// A read that is over, for those who have waited.
struct FinishedRead {
  let flight: Handle
  let waiters: [Handle]
  let next: [Handle]
  /// The message on the wire, if it can be shared.
  let message: [UInt8]
  let revision: Int64
  let key: [UInt8]
  let hash: UInt64
}
