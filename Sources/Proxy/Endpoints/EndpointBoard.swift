internal import Reactor
internal import Synchronization

/// What is known about the endpoints, shared by all cores: plain atomics, one row a core, so that each line of memory
/// has one writer and counting costs no more than a store.
@safe final class EndpointBoard: @unchecked Sendable {
  /// How far an endpoint can be trusted with a new connection; better ones first.
  enum Status: UInt8, CaseIterable {
    /// Answers.
    case up
    /// Lives, but says of itself that it is not healthy (no leader, an alarm).
    case sick
    /// Refuses, times out, or does not answer a probe.
    case down
  }

  /// What clients speak through the gateway.
  enum Spoken: UInt8 { case unknown, http, tls }

  /// A core's view of one endpoint.
  enum Field: Int, CaseIterable {
    /// Connections opened to the endpoint, ever.
    case opened
    /// Connections closed again.
    case closed
    /// Connection attempts that failed.
    case failed
    /// Bytes from clients to the endpoint.
    case bytesUp
    /// Bytes from the endpoint to clients.
    case bytesDown
    /// When the endpoint last sent something (nanoseconds, monotonic).
    case heard
    /// When a client's bytes first went to the endpoint after it was last heard.
    case asked
  }

  private static let fields = 8  // Field.allCases, padded to a cache line
  private let cells: UnsafeMutablePointer<Atomic<UInt64>>
  private let statuses: UnsafeMutablePointer<Atomic<UInt8>>
  private let turn = Atomic<UInt32>(0)
  private let spoken = Atomic<UInt8>(Spoken.unknown.rawValue)
  /// Cores that write, one row each.
  let cores: Int
  /// Endpoints there is room for.
  let slots: Int

  init(cores: Int, slots: Int) {
    self.cores = cores
    self.slots = slots
    unsafe cells = .allocate(capacity: cores * slots * Self.fields)
    for index in 0..<cores * slots * Self.fields { unsafe (cells + index).initialize(to: Atomic(0)) }
    unsafe statuses = .allocate(capacity: slots)
    for index in 0..<slots { unsafe (statuses + index).initialize(to: Atomic(Status.up.rawValue)) }
  }

  deinit {
    unsafe cells.deallocate()
    unsafe statuses.deallocate()
  }

  private func index(_ core: Int, _ slot: Int, _ field: Field) -> Int {
    precondition(core < cores && slot < slots)
    return (core * slots + slot) * Self.fields + field.rawValue
  }

  /// Adds to a counter; only the core itself may write its row, so load and store need no lock between them.
  func add(_ amount: UInt64, core: Int, slot: Int, _ field: Field) {
    let at = index(core, slot, field)
    unsafe cells[at].store(cells[at].load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  /// Notes that the endpoint sent something.
  func heard(core: Int, slot: Int, at now: Instant) {
    unsafe cells[index(core, slot, .heard)].store(now.nanoseconds, ordering: .relaxed)
  }

  /// Notes that a client's bytes went to the endpoint; the first unanswered time stays.
  func asked(core: Int, slot: Int, at now: Instant) {
    let asked = index(core, slot, .asked)
    let heard = unsafe cells[index(core, slot, .heard)].load(ordering: .relaxed)
    guard unsafe cells[asked].load(ordering: .relaxed) <= heard else { return }
    unsafe cells[asked].store(max(now.nanoseconds, heard + 1), ordering: .relaxed)
  }

  /// A counter summed over the cores.
  func sum(_ field: Field, slot: Int) -> UInt64 {
    (0..<cores).reduce(0) { $0 &+ value(core: $1, slot: slot, field) }
  }

  /// One core's value.
  func value(core: Int, slot: Int, _ field: Field) -> UInt64 {
    unsafe cells[index(core, slot, field)].load(ordering: .relaxed)
  }

  /// Open connections to the endpoint; may be off by what the cores are doing at this moment.
  func active(slot: Int) -> Int {
    max(0, Int(truncatingIfNeeded: sum(.opened, slot: slot) &- sum(.closed, slot: slot)))
  }

  /// When the endpoint was last heard on any core, zero for never.
  func lastHeard(slot: Int) -> Instant {
    Instant(nanoseconds: (0..<cores).reduce(0) { max($0, value(core: $1, slot: slot, .heard)) })
  }

  /// Since when some core waits for an answer of the endpoint, if one does.
  func silentSince(slot: Int) -> Instant? {
    var oldest: UInt64?
    for core in 0..<cores {
      let asked = value(core: core, slot: slot, .asked)
      guard asked > value(core: core, slot: slot, .heard) else { continue }
      oldest = min(oldest ?? asked, asked)
    }
    return oldest.map(Instant.init(nanoseconds:))
  }

  /// The endpoint's status.
  func status(_ slot: Int) -> Status {
    precondition(slot < slots)
    return unsafe Status(rawValue: statuses[slot].load(ordering: .relaxed)) ?? .up
  }

  /// Changes the status; false if it was that already, so that exactly one thread reports a change.
  func set(_ slot: Int, _ status: Status) -> Bool {
    precondition(slot < slots)
    return unsafe statuses[slot].exchange(status.rawValue, ordering: .relaxed) != status.rawValue
  }

  /// Clears a slot for a new endpoint.
  func reset(_ slot: Int) {
    precondition(slot < slots)
    unsafe statuses[slot].store(Status.up.rawValue, ordering: .relaxed)
  }

  /// What the clients were seen to speak.
  var spokenProtocol: Spoken { Spoken(rawValue: spoken.load(ordering: .relaxed)) ?? .unknown }

  /// Notes what the clients speak; they are taken to speak all the same.
  func learn(_ heard: Spoken) { spoken.store(heard.rawValue, ordering: .relaxed) }

  /// The next number of the round robin that all cores share, so that the order holds over the whole process.
  func nextTurn() -> UInt32 { turn.add(1, ordering: .relaxed).oldValue }
}
