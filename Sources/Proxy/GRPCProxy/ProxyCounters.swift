internal import Reactor
internal import Synchronization

/// The proxy's counters: one row of plain atomics a core, each written by its core alone, summed when asked.
@safe final class ProxyCounters: @unchecked Sendable {
  enum Field: Int, CaseIterable {
    case accepted, closed, refused, acceptPauses, handshakeFailures
    case connects, connectFailures, retries, pages
    case clientBytesIn, clientBytesOut, upstreamBytesIn, upstreamBytesOut
    case errorsOfClients, errorsOfEtcd, errorsOfProxy
    case healthSuccesses, healthFailures
    case watchersJoined, watchCatchUps, watchBlocks, watchEvents, watchDeliveries, watchResumes,
      watchUnwanted,
      watchPauses
    // As they are now, refreshed each second.
    case watchers, watchGroups, watchStreams, watchHistoryBytes, watchCovers, watchLanes
    case heartbeatsReceived, heartbeatsSent, heartbeatsWaiting, heartbeatStreams
  }

  /// Upper bounds of a call's time, in seconds.
  static let bounds = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
  ]
  private static let boundNanoseconds = bounds.map { UInt64($0 * 1e9) }

  /// A method's columns: started, messages both ways, time in microseconds, then the codes, then the buckets.
  private enum Column {
    static let started = 0
    static let received = 1
    static let sent = 2
    static let microseconds = 3
    static let codes = 4
    static let buckets = codes + GRPCStatus.Code.allCases.count
    static let count = (buckets + ProxyCounters.bounds.count + 1 + 7) / 8 * 8
  }

  private static let methods = Int(EtcdMethod.unknown.rawValue) + 1
  private static let fields = (Field.allCases.count + 7) / 8 * 8
  private static let row = fields + methods * Column.count + 8

  private let cells: UnsafeMutablePointer<Atomic<UInt64>>
  let cores: Int

  /// One row more than there are cores, for the control thread.
  init(cores: Int) {
    self.cores = cores
    unsafe cells = .allocate(capacity: (cores + 1) * Self.row)
    for index in 0..<(cores + 1) * Self.row { unsafe (cells + index).initialize(to: Atomic(0)) }
  }

  deinit { unsafe cells.deallocate() }

  private func add(_ amount: UInt64, _ core: Int, _ column: Int) {
    precondition(core <= cores && column < Self.row)
    let at = core * Self.row + column
    unsafe cells[at].store(cells[at].load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  private func sum(_ column: Int) -> UInt64 {
    (0...cores).reduce(0) { total, core in
      unsafe total &+ cells[core * Self.row + column].load(ordering: .relaxed)
    }
  }

  private func column(_ method: EtcdMethod, _ column: Int) -> Int {
    Self.fields + Int(method.rawValue) * Column.count + column
  }

  // MARK: Counting

  func add(_ field: Field, _ amount: UInt64 = 1, core: Int) { add(amount, core, field.rawValue) }

  /// For what goes up and down.
  func set(_ field: Field, _ value: UInt64, core: Int) {
    precondition(core <= cores)
    unsafe cells[core * Self.row + field.rawValue].store(value, ordering: .relaxed)
  }

  func started(_ method: EtcdMethod, core: Int) { add(1, core, column(method, Column.started)) }

  func receivedMessage(_ method: EtcdMethod, core: Int) { add(1, core, column(method, Column.received)) }

  func sentMessage(_ method: EtcdMethod, core: Int) { add(1, core, column(method, Column.sent)) }

  func handled(_ method: EtcdMethod, _ code: GRPCStatus.Code, after span: Instant.Span, core: Int) {
    add(1, core, column(method, Column.codes + Int(code.rawValue)))
    var bucket = 0
    while bucket < Self.boundNanoseconds.count, span.nanoseconds > Self.boundNanoseconds[bucket] {
      bucket += 1
    }
    add(1, core, column(method, Column.buckets + bucket))
    add(span.nanoseconds / 1000, core, column(method, Column.microseconds))
  }

  /// What a closed connection has carried.
  func addClientBytes(received: UInt64, sent: UInt64, core: Int) {
    add(.clientBytesIn, received, core: core)
    add(.clientBytesOut, sent, core: core)
  }

  func addBytes(up: UInt64, down: UInt64, core: Int) {
    add(.upstreamBytesOut, up, core: core)
    add(.upstreamBytesIn, down, core: core)
  }

  /// An error of the proxy's own making: whose fault it was, by its code.
  func failed(_ code: GRPCStatus.Code, core: Int) {
    switch code {
    case .unavailable: add(.errorsOfEtcd, core: core)
    case .internal: add(.errorsOfProxy, core: core)
    default: add(.errorsOfClients, core: core)
    }
  }

  // MARK: Reading

  subscript(field: Field) -> UInt64 { sum(field.rawValue) }

  func started(_ method: EtcdMethod) -> UInt64 { sum(column(method, Column.started)) }
  func received(_ method: EtcdMethod) -> UInt64 { sum(column(method, Column.received)) }
  func sent(_ method: EtcdMethod) -> UInt64 { sum(column(method, Column.sent)) }

  func handled(_ method: EtcdMethod, _ code: GRPCStatus.Code) -> UInt64 {
    sum(column(method, Column.codes + Int(code.rawValue)))
  }

  /// How long calls of the method took.
  func times(_ method: EtcdMethod) -> Histogram {
    Histogram(
      bounds: Self.bounds,
      counts: (0...Self.bounds.count).map { sum(column(method, Column.buckets + $0)) },
      sum: Double(sum(column(method, Column.microseconds))) / 1e6)
  }
}
