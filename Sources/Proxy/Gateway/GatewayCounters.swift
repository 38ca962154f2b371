internal import Reactor
internal import Synchronization

/// The gateway's counters: one row of plain atomics a core, each written by its core alone, summed when asked.
@safe final class GatewayCounters: @unchecked Sendable {
  enum Field: Hashable {
    case accepted, closed, refused, noEndpoint, acceptPauses, moved
    case ended(Session.Reason)
    /// Connects that took at most the bucket's bound; the last bucket has no bound.
    case connectBucket(Int)
    case connectMicroseconds

    var column: Int {
      switch self {
      case .accepted: 0
      case .closed: 1
      case .refused: 2
      case .noEndpoint: 3
      case .acceptPauses: 4
      case .connectMicroseconds: 5
      case .moved: 6
      case .ended(let reason): 8 + (Session.Reason.allCases.firstIndex(of: reason) ?? 0)
      case .connectBucket(let bucket): 24 + bucket
      }
    }
  }

  /// Upper bounds of the connect-latency histogram, in seconds.
  static let connectBounds = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
  ]

  private static let columns = 48
  private let cells: UnsafeMutablePointer<Atomic<UInt64>>
  let cores: Int

  init(cores: Int) {
    self.cores = cores
    unsafe cells = .allocate(capacity: cores * Self.columns)
    for index in 0..<cores * Self.columns { unsafe (cells + index).initialize(to: Atomic(0)) }
  }

  deinit { unsafe cells.deallocate() }

  func add(_ amount: UInt64, core: Int, _ field: Field) {
    precondition(core < cores && field.column < Self.columns)
    let at = core * Self.columns + field.column
    unsafe cells[at].store(cells[at].load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  func observeConnect(_ span: Instant.Span, core: Int) {
    let bucket = Self.connectBounds.firstIndex { span.seconds <= $0 } ?? Self.connectBounds.count
    add(1, core: core, .connectBucket(bucket))
    add(span.nanoseconds / 1000, core: core, .connectMicroseconds)
  }

  /// A counter summed over the cores.
  func sum(_ field: Field) -> UInt64 {
    (0..<cores).reduce(0) { total, core in
      unsafe total &+ cells[core * Self.columns + field.column].load(ordering: .relaxed)
    }
  }
}
