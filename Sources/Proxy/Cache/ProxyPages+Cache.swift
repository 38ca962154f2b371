internal import Reactor

/// The cache's figures, under etcd's names where etcd's proxy has them.
extension ProxyPages {
  func cache(_ text: inout MetricsText) {
    let counters = shared.cacheCounters
    let hits = counters[.serializableHits] + counters[.consistentHits] + counters[.fixedHits]
    for (name, help, value) in [
      (
        "cache_keys_total", "Total number of keys/ranges cached.",
        counters.difference(.inserted, .removed)
      ),
      ("cache_hits_total", "Total number of cache hits.", hits),
      ("cache_misses_total", "Total number of cache misses.", counters[.misses]),
    ] {
      text.family("etcd_grpc_proxy_\(name)", .gauge, help: help)
      text.sample(value)
    }
    text.family("ringway_cache_hits_total", .counter, help: "Reads answered from the cache, by kind.")
    for (kind, field) in [
      ("serializable", CacheCounters.Field.serializableHits), ("consistent", .consistentHits),
      ("fixed_revision", .fixedHits),
    ] {
      text.sample(labels: [("kind", kind)], counters[field])
    }
    text.family(
      "ringway_cache_removed_total", .counter, help: "Answers that left the cache, by what made them.")
    for (cause, field) in [
      ("event", CacheCounters.Field.byEvent), ("write", .byWrite), ("auth", .byAuth),
      ("compaction", .byCompaction), ("age", .byAge), ("room", .byRoom),
    ] {
      text.sample(labels: [("cause", cause)], counters[field])
    }
    for (name, help, field) in [
      (
        "cache_refused_total", "Answers not kept, being out of date or too large.",
        CacheCounters.Field.refusedInserts
      ),
      ("reads_shared_total", "Reads answered together with another one.", .shares),
      (
        "reads_ordered_total", "Reads made again for being older than what the client had seen.",
        .orderedReads
      ),
      ("read_indexes_total", "Questions to etcd on behalf of consistent reads from the cache.", .readIndexes),
    ] {
      text.family("ringway_\(name)", .counter, help: help)
      text.sample(counters[field])
    }
    text.family("ringway_cache_bytes", .gauge, help: "Memory of the cached answers.")
    text.sample(counters.difference(.bytesIn, .bytesOut))
    text.family("ringway_cache_keepers", .gauge, help: "Watches that keep cached answers right.")
    text.sample(counters.difference(.keepersBegun, .keepersEnded))
  }
}
