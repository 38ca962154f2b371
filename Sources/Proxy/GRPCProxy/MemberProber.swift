internal import Glibc
internal import Reactor

/// Asks every endpoint each second how it is (Maintenance/Status), so that a stopped, cut off or leaderless member is known
/// before a client's call finds out.
///
/// A process that was stopped still completes TCP handshakes and a member without a leader still answers: what counts is
/// an answer to a call, and what it says.
final class MemberProber {
  private unowned let core: ControlCore<ProxyMessage>
  private let shared: ProxyShared
  private let client: EtcdClient
  private var endpoints: [Endpoint] = []
  /// When each slot's endpoint was asked last, and whether that is still open.
  private var asked: [Int: Instant] = [:]
  private var open: Set<Int> = []
  private var failures: [Int: Int] = [:]
  private var timer = TimerWheel.Timer.none
  private let owner: UInt8
  /// What each member said of itself last, for the metrics: by slot.
  private(set) var states: [Int: StatusResponse] = [:]
  private(set) var latencies: [Int: Instant.Span] = [:]
  /// Whether the member's progress notifications can be trusted.
  private var progress: [Int: Bool] = [:]
  /// A down endpoint is asked this often.
  private static let tick = Instant.Span.milliseconds(100)
  /// Questions in a row that the only endpoint there is may leave unanswered.
  private static let patience = 3

  init(core: ControlCore<ProxyMessage>, owner: UInt8, shared: ProxyShared, client: EtcdClient) {
    self.core = core
    self.owner = owner
    self.shared = shared
    self.client = client
  }

  func watch(_ endpoints: [Endpoint]) {
    self.endpoints = endpoints
    for slot in states.keys where !endpoints.contains(where: { $0.slot == slot }) { states[slot] = nil }
    for slot in progress.keys where !endpoints.contains(where: { $0.slot == slot }) { progress[slot] = nil }
    if timer == .none { expire() }
  }

  func probeAll() { asked.removeAll() }

  func expire() {
    timer = core.timers.schedule(
      at: core.now + Self.tick,
      Token(owner: owner, operation: 0, handle: Handle(slot: 0, generation: 0)))
    for endpoint in endpoints where !open.contains(endpoint.slot) && isDue(endpoint.slot) { ask(endpoint) }
  }

  private func isDue(_ slot: Int) -> Bool {
    let interval = shared.options.healthInterval.span
    guard let last = asked[slot] else { return true }
    if shared.board.status(slot) == .down {
      // Twice as long after each failure, up to the interval of the living.
      let shift = UInt64(min(failures[slot] ?? 0, 6))
      return core.now - last >= min(interval, Instant.Span(nanoseconds: Self.tick.nanoseconds << shift))
    }
    return core.now - last >= interval
  }

  private func ask(_ endpoint: Endpoint) {
    let slot = endpoint.slot
    asked[slot] = core.now
    open.insert(slot)
    let began = core.now
    client.call(
      "/etcdserverpb.Maintenance/Status", [], at: endpoint, within: shared.options.healthTimeout.span
    ) { [unowned self] result in
      open.remove(slot)
      guard endpoints.contains(where: { $0.slot == slot && $0.isSamePlace(as: endpoint) }) else { return }
      latencies[slot] = core.now - began
      // One that has answered clients since is busy, not stopped: to cut its connections would end what
      // works.
      if case .failure(.timeout) = result, shared.board.lastHeard(slot: slot) >= began {
        failures[slot] = 0
        return
      }
      heard(endpoint, result)
    }
  }

  private func heard(_ endpoint: Endpoint, _ result: Result<[UInt8], EtcdClient.Failure>) {
    switch result {
    case .success(let message):
      let status = unsafe message.withUnsafeBytes { unsafe try? StatusResponse($0) }
      states[endpoint.slot] = status
      progress[endpoint.slot] = ProgressSoundness.isSound(version: status?.version ?? "")
      settle(endpoint, status.map { $0.leader == 0 || $0.isLearner } == true ? .sick : .up)
    case .failure(.status(let status)):
      // Whatever it says, it answers: with auth on it may say no more than that we are nobody.
      settle(endpoint, status.code == .unavailable ? .sick : .up)
    case .failure(.timeout): failed(endpoint, SystemError(code: ETIMEDOUT), hung: true)
    case .failure(.transport(let error)): failed(endpoint, error, hung: error.code == ETIMEDOUT)
    }
    let isSound = endpoints.allSatisfy { progress[$0.slot] ?? (shared.board.status($0.slot) == .down) }
    shared.hasSoundProgress.store(isSound, ordering: .relaxed)
  }

  private func settle(_ endpoint: Endpoint, _ status: EndpointBoard.Status) {
    failures[endpoint.slot] = 0
    guard shared.board.set(endpoint.slot, status) else { return }
    let address = LogField.string("address", endpoint.name)
    if status == .sick {
      shared.log.warn("endpoint has no leader or is a learner; calls go elsewhere", address)
    } else {
      shared.log.info("endpoint is healthy", address)
    }
  }

  private func hasBetter(than endpoint: Endpoint) -> Bool {
    endpoints.contains { $0.slot != endpoint.slot && shared.board.status($0.slot) == .up }
  }

  private func failed(_ endpoint: Endpoint, _ error: SystemError, hung: Bool) {
    failures[endpoint.slot, default: 0] += 1
    states[endpoint.slot] = nil
    if shared.board.set(endpoint.slot, .down) {
      shared.log.warn(
        "endpoint does not answer; calls go elsewhere", .string("address", endpoint.name), .error(error))
    }
    // Connections to a process that has stopped would hang until their clients give up: they end now, each time, for one may
    // have come up between two questions that were not answered. Where there is no better place, a slow one gets longer.
    guard hung, hasBetter(than: endpoint) || failures[endpoint.slot, default: 0] >= Self.patience else {
      return
    }
    core.tell { .endpointHung(endpoint.slot) }
  }
}
