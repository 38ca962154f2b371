internal import Glibc
internal import Reactor

/// Active health checks: finds out whether endpoints answer, and brings those back that do again.
///
/// Lives on the control thread. The cores report what they see through the board (last heard, unanswered since, failed
/// connects), so that a busy healthy endpoint is hardly ever probed and a silent one at once.
///
/// A process that was stopped still completes TCP handshakes, so a connect alone proves nothing. What counts as life is
/// any byte, or an end of stream, after a question: an HTTP request where clients speak plain text, a TLS greeting where
/// they speak TLS. `--health-check auto` learns which from the first bytes that a client sends, and takes silence for a
/// fault only of an endpoint that has answered before.
final class Prober {
  private enum Timing {
    static let tick = Instant.Span.milliseconds(100)
    /// An unanswered question of a client for this long makes us ask ourselves.
    static let suspicion = Instant.Span.milliseconds(300)
    static let firstRetry = Instant.Span.milliseconds(100)
    /// Never longer between two attempts to bring an endpoint back, whatever `--retry-delay` says.
    static let lastRetry = Instant.Span.seconds(1)
    /// Probes of a TLS endpoint leave a line in etcd's log each: fewer of them while nobody is harmed.
    static let seldom: UInt64 = 5
    /// A lost SYN is sent again after a second (RFC 6298): a connect gets the time for that to be answered.
    static let retransmission = Instant.Span.milliseconds(300)
    /// Until a question is asked again that an endpoint has never answered.
    static let unansweredPause = Instant.Span.seconds(10)
  }

  private enum Operation {
    static let connect: UInt8 = 0
    static let readable: UInt8 = 1
    static let sent: UInt8 = 2
  }

  /// What is known about one endpoint.
  private struct Watch {
    var endpoint: Endpoint
    var probe: Probe?
    var started = Instant(nanoseconds: 0)
    var next = Instant(nanoseconds: 0)
    var retry = Timing.firstRetry
    var lastLine: Instant?
    var hungReported = false
    /// It has answered a question before, so that silence means something.
    var hasAnswered = false
  }

  /// A check under way.
  private final class Probe {
    let serial: UInt32
    let started: Instant
    var descriptor: Int32
    var address = 0
    var question: ProbeQuestion
    var operation = Operation.connect
    var isAbandoned = false

    init(serial: UInt32, started: Instant, descriptor: Int32, question: ProbeQuestion) {
      self.serial = serial
      self.started = started
      self.descriptor = descriptor
      self.question = question
    }
  }

  private unowned let core: ControlCore<CoreMessage>
  private let owner: UInt8
  private let shared: GatewayShared
  private let tls: TLSContext?
  private var watches: [Int: Watch] = [:]
  private var abandoned: [UInt32: Probe] = [:]
  private var serial: UInt32 = 0
  private var timer = TimerWheel.Timer.none

  /// - Parameter tls: for greetings to endpoints that speak TLS; nothing is verified here.
  init(core: ControlCore<CoreMessage>, owner: UInt8, shared: GatewayShared, tls: TLSContext?) {
    self.core = core
    self.owner = owner
    self.shared = shared
    self.tls = tls
  }

  /// The endpoints to look after from now on.
  func watch(_ endpoints: [Endpoint]) {
    for (slot, watch) in watches where !endpoints.contains(where: { $0.isSamePlace(as: watch.endpoint) }) {
      if let probe = watch.probe { abandon(probe, slot) }
      watches[slot] = nil
    }
    for endpoint in endpoints {
      watches[endpoint.slot, default: Watch(endpoint: endpoint)].endpoint = endpoint
    }
    if timer == .none { tick() }
  }

  /// Looks at every endpoint now, for SIGHUP.
  func probeAll() {
    for slot in watches.keys { watches[slot]?.next = core.now }
  }

  private func token(_ operation: UInt8, _ slot: Int, _ probe: Probe) -> Token {
    Token(owner: owner, operation: operation, handle: Handle(slot: UInt32(slot), generation: probe.serial))
  }

  // MARK: When to probe

  /// The timer fired.
  func tick() {
    let handle = Handle(slot: 0, generation: 0)
    timer = core.timers.schedule(
      at: core.now + Timing.tick, Token(owner: owner, operation: 15, handle: handle))
    for slot in watches.keys { look(slot) }
  }

  private func look(_ slot: Int) {
    guard let watch = watches[slot] else { return }
    if let probe = watch.probe {
      let grace = probe.operation == Operation.connect ? Timing.retransmission : .zero
      let limit = Instant.Span(
        nanoseconds: shared.options.healthTimeout.span.nanoseconds &+ grace.nanoseconds)
      if core.now - probe.started >= limit { timedOut(slot, probe) }
    } else if isDue(watch) {
      start(slot)
    }
  }

  private func isDue(_ watch: Watch) -> Bool {
    let board = shared.board
    let slot = watch.endpoint.slot
    let now = core.now
    if board.status(slot) == .down {
      // A core may have found it down long before the next regular check.
      return now >= min(watch.next, watch.started + min(Timing.lastRetry, shared.options.retryLimit))
    }
    guard shared.options.healthCheck != .off else { return false }
    if let silent = board.silentSince(slot: slot), now - silent >= Timing.suspicion, isProven(watch),
      watch.started < silent + Timing.suspicion
    {
      return true
    }
    guard now >= watch.next else { return false }
    let interval = shared.options.healthInterval.span
    let isHeard = now - board.lastHeard(slot: slot) < interval
    // Seldom, where asking is noisy or the traffic itself shows that the endpoint lives.
    guard board.status(slot) == .up, isProven(watch), question == .greeting || isHeard else { return true }
    return now >= watch.next + Instant.Span(nanoseconds: interval.nanoseconds &* (Timing.seldom - 1))
  }

  /// Whether silence means anything: this endpoint has answered the question before, or endpoints have answered clients
  /// that speak the protocol of the question.
  private func isProven(_ watch: Watch) -> Bool {
    guard question != .none else { return false }
    return watch.hasAnswered || watches.keys.contains { shared.board.lastHeard(slot: $0).nanoseconds > 0 }
  }

  /// What would be asked now.
  private var question: ProbeQuestion.Kind {
    switch shared.options.healthCheck {
    case .tcp, .off: .none
    case .tls: .greeting
    case .http: .request
    case .auto:
      switch shared.board.spokenProtocol {
      case .unknown: .none
      case .http: .request
      case .tls: .greeting
      }
    }
  }

  // MARK: One probe

  private func start(_ slot: Int, address: Int = 0) {
    guard let endpoint = watches[slot]?.endpoint else { return }
    serial &+= 1
    let asked = ProbeQuestion(question, endpoint: endpoint, tls: tls)
    let probe = Probe(serial: serial, started: core.now, descriptor: -1, question: asked)
    probe.address = address
    watches[slot]?.probe = probe
    watches[slot]?.started = core.now
    connect(slot, probe, endpoint)
  }

  private func connect(_ slot: Int, _ probe: Probe, _ endpoint: Endpoint) {
    let address = endpoint.addresses[probe.address]
    probe.descriptor = core.kernel.socket(family: address.family)
    guard probe.descriptor >= 0 else {
      // This machine's trouble says nothing about the endpoint.
      watches[slot]?.probe = nil
      watches[slot]?.next = core.now + shared.options.healthInterval.span
      return
    }
    probe.operation = Operation.connect
    core.kernel.connect(probe.descriptor, to: address, token(Operation.connect, slot, probe))
  }

  func complete(_ completion: Completion) {
    let slot = Int(completion.token.handle.slot)
    if let gone = abandoned.removeValue(forKey: completion.token.handle.generation) {
      return core.kernel.close(gone.descriptor)
    }
    guard let probe = watches[slot]?.probe, probe.serial == completion.token.handle.generation else { return }
    switch completion.token.operation {
    case Operation.connect: connected(slot, probe, completion.result)
    case Operation.sent where completion.result >= 0: listen(slot, probe)
    case Operation.sent: finish(slot, probe, .lives)
    default: read(slot, probe)
    }
  }

  private func connected(_ slot: Int, _ probe: Probe, _ result: Int32) {
    guard let endpoint = watches[slot]?.endpoint else { return }
    if result < 0 {
      core.kernel.close(probe.descriptor)
      if probe.address + 1 < endpoint.addresses.count {
        probe.address += 1
        return connect(slot, probe, endpoint)
      }
      watches[slot]?.probe = nil
      return failed(slot, SystemError(code: -result), hung: false)
    }
    let bytes = probe.question.bytes
    guard !bytes.isEmpty else { return finish(slot, probe, .lives) }
    probe.operation = Operation.sent
    unsafe probe.question.withBytes { bytes in
      unsafe core.kernel.send(probe.descriptor, bytes, prompt: true, token(Operation.sent, slot, probe))
    }
  }

  private func listen(_ slot: Int, _ probe: Probe) {
    probe.operation = Operation.readable
    core.kernel.poll(probe.descriptor, for: .readable, token(Operation.readable, slot, probe))
  }

  private func read(_ slot: Int, _ probe: Probe) {
    var room = [UInt8](repeating: 0, count: 4096)
    let count = unsafe room.withUnsafeMutableBytes { unsafe core.kernel.read(probe.descriptor, into: $0) }
    if count == -Int(EAGAIN) { return listen(slot, probe) }
    switch probe.question.heard(room[..<max(0, count)], ended: count <= 0) {
    case .more: listen(slot, probe)
    case let verdict:
      watches[slot]?.hasAnswered = true
      finish(slot, probe, verdict)
    }
  }

  private func timedOut(_ slot: Int, _ probe: Probe) {
    watches[slot]?.probe = nil
    abandon(probe, slot)
    guard let endpoint = watches[slot]?.endpoint else { return }
    if shared.board.lastHeard(slot: slot) >= probe.started {
      // It has sent something to a client since: whatever became of our own question, it does not hang.
      return settle(slot, .up)
    }
    if probe.operation == Operation.connect, probe.address + 1 < endpoint.addresses.count {
      return start(slot, address: probe.address + 1)
    }
    if probe.question.hasAnswered {
      // The process lives and is slow to say how it is: nothing for new clients while others are better.
      return settle(slot, .sick)
    }
    if shared.options.healthCheck == .auto, watches[slot].map(isProven) == false,
      probe.operation != Operation.connect
    {
      // The question was our guess, and this server may just not know it: it takes connections, and that has to do.
      settle(slot, .up)
      watches[slot]?.next = core.now + Timing.unansweredPause
      return
    }
    failed(slot, SystemError(code: ETIMEDOUT), hung: true)
  }

  private func abandon(_ probe: Probe, _ slot: Int) {
    abandoned[probe.serial] = probe
    core.kernel.cancel(token(probe.operation, slot, probe), on: probe.descriptor)
  }

  // MARK: What follows

  private func finish(_ slot: Int, _ probe: Probe, _ verdict: ProbeQuestion.Verdict) {
    core.kernel.close(probe.descriptor)
    watches[slot]?.probe = nil
    settle(slot, verdict == .sick ? .sick : .up)
  }

  private func settle(_ slot: Int, _ status: EndpointBoard.Status) {
    guard let watch = watches[slot] else { return }
    let before = shared.board.status(slot)
    watches[slot]?.next = core.now + shared.options.healthInterval.span
    watches[slot]?.retry = Timing.firstRetry
    watches[slot]?.lastLine = nil
    watches[slot]?.hungReported = false
    guard shared.board.set(slot, status) else { return }
    let address = LogField.string("address", watch.endpoint.name)
    switch status {
    case .sick: shared.log.warn("endpoint reports that it is not healthy; new clients go elsewhere", address)
    default: shared.log.info(before == .down ? "activated" : "endpoint is healthy again", address)
    }
  }

  private func failed(_ slot: Int, _ error: SystemError, hung: Bool) {
    guard let watch = watches[slot] else { return }
    let interval = LogField.duration("interval", nanoseconds: shared.options.retryDelay.nanoseconds)
    let address = LogField.string("address", watch.endpoint.name)
    if shared.board.set(slot, .down) {
      shared.log.warn("deactivated endpoint", address, interval, .error(error))
      watches[slot]?.lastLine = core.now
    } else if core.now - (watch.lastLine ?? Instant(nanoseconds: 0)) >= shared.options.retryLimit {
      let message = "failed to activate endpoint (stay inactive for another interval)"
      shared.log.warn(message, address, interval, .error(error))
      watches[slot]?.lastLine = core.now
    }
    let longest = min(Timing.lastRetry, shared.options.retryLimit)
    watches[slot]?.next = core.now + watch.retry
    watches[slot]?.retry = min(longest, Instant.Span(nanoseconds: watch.retry.nanoseconds &* 2))
    if hung && !watch.hungReported { reportHung(slot, watch.endpoint) }
  }

  /// Connections to a process that has stopped would hang until their clients give up: they end now.
  private func reportHung(_ slot: Int, _ endpoint: Endpoint) {
    watches[slot]?.hungReported = true
    let active = shared.board.active(slot: slot)
    if active > 0 {
      shared.log.warn(
        "endpoint does not answer; ending its connections", .string("address", endpoint.name),
        .int("connections", Int64(active)))
    }
    core.tell { .endpointHung(slot) }
  }
}
