internal import Reactor

/// What the cache of a core is told.
struct CacheSettings {
  /// `--cache`.
  enum Mode: String, FlagChoice {
    /// Reads go to etcd, each by itself.
    case off
    /// Answers are kept for the time of `--cache-max-staleness`, as etcd's proxy keeps them without end.
    case etcd
    /// Those that are asked for again and again are kept right by a watch.
    case watch
  }

  var mode = Mode.watch
  /// For one core.
  var bytes = 64 << 20
  /// How old an answer may be that nothing keeps right.
  var maxStaleness = Instant.Span.seconds(1)
  var isConsistent = false
  /// Keys that are never kept.
  var bypass: [KeySpan] = []

  /// Answers that are not needed any more still show what is read again and again.
  var retention: Instant.Span { max(maxStaleness, Limits.keeperHeat) }
}

extension CacheSettings {
  init(_ options: GRPCProxyOptions, cores: Int) {
    mode = options.cache
    bytes = options.cacheBytes / max(1, cores)
    maxStaleness = options.cacheMaxStaleness.span
    isConsistent = options.cache == .watch && options.consistentCache
    bypass = options.bypassPrefixes.map { KeySpan(prefix: Array($0.utf8)) }
  }
}
