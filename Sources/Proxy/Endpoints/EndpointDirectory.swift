internal import Reactor

/// Keeps the endpoint table in step with DNS: resolves names and SRV records on their lifetime, publishes a new table
/// when something changed, and keeps the last good answer while DNS is away. Lives on the control thread.
final class EndpointDirectory {
  private enum Timing {
    static let tick = Instant.Span.seconds(1)
    static let firstRetry = Instant.Span.seconds(1)
    static let lastRetry = Instant.Span.seconds(30)
  }

  /// One name as listed or discovered.
  private struct Entry {
    let name: EndpointName
    var priority: UInt16
    var weight: UInt16
    var slot: Int?
    var addresses: [Address] = []
    var failure: String?
    var due = Instant(nanoseconds: 0)
    var retry = Timing.firstRetry
    var isResolving = false
  }

  private unowned let core: Core
  private let context: EndpointContext
  private let resolver: Resolver
  private var entries: [Entry] = []
  private var slotsInUse: Set<Int> = []
  private var slotsEverUsed: Set<Int> = []
  /// Told whenever the table changes.
  var changed: (EndpointTable) -> Void = { _ in }
  /// The table in force.
  private(set) var table: EndpointTable
  /// Names still looked up for the first time.
  private(set) var outstanding = 0

  init(core: Core, context: EndpointContext, resolver: Resolver) {
    self.core = core
    self.context = context
    self.resolver = resolver
    table = EndpointTable(endpoints: [], balance: context.settings.balance)
  }

  /// The names that have no address, with the reason.
  var unresolved: [(name: String, host: String, reason: String)] {
    entries.filter { $0.addresses.isEmpty }.map {
      ($0.name.displayName, $0.name.host, $0.failure ?? "not resolved")
    }
  }

  /// Every name known, resolved or not.
  var names: [String] { entries.map(\.name.displayName) }

  /// Replaces the list of names; those that stay keep their slot, their addresses and their state.
  func list(_ listed: [(name: EndpointName, priority: UInt16, weight: UInt16)]) {
    let old = entries
    entries = listed.prefix(Limits.endpoints).map { item in
      guard var known = old.first(where: { $0.name.displayName == item.name.displayName }) else {
        return Entry(name: item.name, priority: item.priority, weight: item.weight)
      }
      known.priority = item.priority
      known.weight = item.weight
      return known
    }
    for entry in old where !entries.contains(where: { $0.slot == entry.slot }) {
      if let slot = entry.slot { slotsInUse.remove(slot) }
    }
    for index in entries.indices where entries[index].addresses.isEmpty && core.now >= entries[index].due {
      resolve(index)
    }
    publishIfChanged()
  }

  /// Looks everything up again now (SIGHUP).
  func refreshAll() {
    for index in entries.indices { resolve(index) }
  }

  /// Looks up what has reached the end of its lifetime; called every second or so.
  func tick() {
    for index in entries.indices where !entries[index].isResolving && core.now >= entries[index].due {
      resolve(index)
    }
  }

  private func resolve(_ index: Int) {
    switch entries[index].name.target {
    case .unix(let path):
      entries[index].addresses = [.unix(path)]
      entries[index].due = .distantFuture
    case .tcp(let host, let port):
      if let address = Address(ip: host, port: port) {
        entries[index].addresses = [address]
        entries[index].due = .distantFuture
        return
      }
      guard !entries[index].isResolving else { return }
      let isFirst = entries[index].addresses.isEmpty
      if isFirst { outstanding += 1 }
      entries[index].isResolving = true
      let name = entries[index].name.displayName
      resolver.addresses(of: host, port: port) { [unowned self] result in
        if isFirst { outstanding -= 1 }
        resolved(name, result)
      }
    }
  }

  private func resolved(_ name: String, _ result: Result<Resolver.Lookup, Resolver.Failure>) {
    guard let index = entries.firstIndex(where: { $0.name.displayName == name }) else { return }
    entries[index].isResolving = false
    switch result {
    case .success(let lookup):
      entries[index].addresses = Array(lookup.addresses.prefix(Limits.addressesAnEndpoint))
      entries[index].failure = nil
      entries[index].retry = Timing.firstRetry
      entries[index].due = core.now + lookup.lifetime
    case .failure(let failure):
      // An answer that was good stays in force: a DNS outage must not become one of etcd.
      if entries[index].failure == nil {
        context.log.warn(
          "failed to resolve endpoint host", .string("address", name), .string("error", failure.description))
      }
      entries[index].failure = failure.description
      entries[index].due = core.now + entries[index].retry
      let doubled = Instant.Span(nanoseconds: entries[index].retry.nanoseconds * 2)
      entries[index].retry = min(Timing.lastRetry, doubled)
    }
    publishIfChanged()
  }

  private func publishIfChanged() {
    var endpoints: [Endpoint] = []
    for index in entries.indices where !entries[index].addresses.isEmpty {
      guard let slot = slot(for: index) else { continue }
      endpoints.append(
        Endpoint(
          slot: slot, name: entries[index].name.displayName, addresses: entries[index].addresses,
          priority: entries[index].priority, weight: entries[index].weight, host: entries[index].name.host))
    }
    // Names that have no address yet: what was there stays in force.
    guard endpoints != table.endpoints, !endpoints.isEmpty else { return }
    let isFirst = table.endpoints.isEmpty
    table = EndpointTable(endpoints: endpoints, balance: context.settings.balance)
    if !isFirst {
      context.log.info(
        "endpoints changed",
        .strings("endpoints", endpoints.map { "\($0.name) \($0.addresses.map(\.description))" }))
    }
    changed(table)
  }

  /// A row of the board for a new endpoint: one that no connection uses any more.
  private func slot(for index: Int) -> Int? {
    if let slot = entries[index].slot { return slot }
    let free = (0..<Limits.endpoints).filter { slot in
      !slotsInUse.contains(slot) && context.board.active(slot: slot) == 0
        && !table.endpoints.contains { $0.slot == slot }
    }
    // One that was never used, if there is any: the counters of a slot go on with its next owner.
    guard let free = free.first(where: { !slotsEverUsed.contains($0) }) ?? free.first else { return nil }
    slotsInUse.insert(free)
    slotsEverUsed.insert(free)
    context.board.reset(free)
    context.names.set(free, entries[index].name.displayName)
    entries[index].slot = free
    return free
  }
}
