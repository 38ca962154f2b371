internal import Reactor
internal import Synchronization

/// Who may come in. Connections are counted over all cores; sources only when there is a limit for them.
final class Admission: Sendable {
  enum Refusal: String, Sendable {
    case connections = "connection limit reached (--max-connections)"
    case source = "connection limit of this source reached (--max-connections-per-source)"
    case draining = "shutting down"
  }

  private let limit: Int
  private let perSource: Int
  private let count = Atomic<Int>(0)
  /// A lock, but one that is taken once a connection and only with `--max-connections-per-source`.
  private let sources = Mutex<[String: Int]>([:])

  init(connections: Int, perSource: Int) {
    limit = connections
    self.perSource = perSource
  }

  /// Connections admitted and not yet released.
  var active: Int { count.load(ordering: .relaxed) }

  /// Nil when the client may come in; it must then be released with the same source.
  func refusal(_ source: Address?) -> Refusal? {
    guard count.add(1, ordering: .relaxed).newValue <= limit else {
      count.subtract(1, ordering: .relaxed)
      return .connections
    }
    guard perSource > 0, let source, !admit(source.host) else { return nil }
    count.subtract(1, ordering: .relaxed)
    return .source
  }

  private func admit(_ host: String) -> Bool {
    sources.withLock { sources in
      let current = sources[host] ?? 0
      guard current < perSource, current > 0 || sources.count < Limits.countedSources else { return false }
      sources[host] = current + 1
      return true
    }
  }

  func release(_ source: Address?) {
    count.subtract(1, ordering: .relaxed)
    guard perSource > 0, let host = source?.host else { return }
    sources.withLock { sources in
      guard let current = sources[host] else { return }
      sources[host] = current > 1 ? current - 1 : nil
    }
  }
}
