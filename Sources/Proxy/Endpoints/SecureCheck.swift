internal import Glibc
internal import Reactor

/// Checks endpoints that discovery says are secure: a TLS handshake, with the certificate verified when there is a CA
/// file. etcd's gateway only connects here and never uses the CA (client/pkg/transport/tls.go:
/// ValidateSecureEndpoints), so any listener in the right place passed.
final class SecureCheck {
  private static let limit = Instant.Span.seconds(5)

  /// One endpoint being checked.
  private final class Trial {
    let name: EndpointName
    var addresses: [Address] = []
    var descriptor: Int32 = -1
    var handshake: TLSHandshake
    var pending: [UInt8] = []
    var isSending = false
    var result: String??

    init(name: EndpointName, context: borrowing TLSContext) throws(TLSFailure) {
      self.name = name
      handshake = try TLSHandshake(context: context, serverName: name.host)
    }
  }

  private enum Operation {
    static let connect: UInt8 = 0
    static let send: UInt8 = 1
    static let read: UInt8 = 2
    static let limit: UInt8 = 3
  }

  private unowned let core: Core
  private let owner: UInt8
  private let resolver: Resolver
  private let caFile: String
  private var trials: [Trial] = []
  /// Dropped in the middle of a send.
  private var lingering: [Token: Trial] = [:]
  private var serial: UInt32 = 0
  private var timer = TimerWheel.Timer.none
  private var done: ([String?]) -> Void = { _ in }

  init(core: Core, owner: UInt8, resolver: Resolver, caFile: String) {
    self.core = core
    self.owner = owner
    self.resolver = resolver
    self.caFile = caFile
  }

  /// Checks all names at once; for each `done` gets nil, or what is wrong with it, in etcd's words where it has some.
  func validate(_ names: [EndpointName], _ done: @escaping ([String?]) -> Void) {
    self.done = done
    serial &+= 1
    do throws(TLSFailure) {
      let context = try TLSContext.client(trustedCAFile: caFile.isEmpty ? nil : caFile)
      trials = try names.map { name throws(TLSFailure) in try Trial(name: name, context: context) }
    } catch {
      return done(names.map { _ in "\(error)" })
    }
    timer = core.timers.schedule(at: core.now + Self.limit, token(Operation.limit, 0))
    for index in trials.indices { begin(index) }
    if names.isEmpty { finishIfDone() }
  }

  private func token(_ operation: UInt8, _ index: Int) -> Token {
    Token(owner: owner, operation: operation, handle: Handle(slot: UInt32(index), generation: serial))
  }

  private func begin(_ index: Int) {
    let name = trials[index].name
    guard name.isTLSHint else { return conclude(index, "\"http://\(name.displayName)\" is insecure") }
    let current = serial
    resolver.addresses(of: name.host, port: name.port) { [unowned self] result in
      guard current == serial else { return }
      switch result {
      case .success(let lookup):
        trials[index].addresses = lookup.addresses
        connect(index)
      case .failure(let failure): fail(index, failure.description)
      }
    }
  }

  private func connect(_ index: Int) {
    guard let address = trials[index].addresses.first else { return fail(index, "no address") }
    let descriptor = core.kernel.socket(family: address.family)
    guard descriptor >= 0 else { return fail(index, SystemError(code: -descriptor).description) }
    trials[index].descriptor = descriptor
    core.kernel.connect(descriptor, to: address, token(Operation.connect, index))
  }

  private func fail(_ index: Int, _ reason: String) {
    conclude(index, "\"https://\(trials[index].name.displayName)\" failed to dial (\(reason))")
  }

  private func conclude(_ index: Int, _ problem: String?) {
    guard trials[index].result == nil else { return }
    trials[index].result = .some(problem)
    finishIfDone()
  }

  private func finishIfDone() {
    guard trials.allSatisfy({ $0.result != nil }) else { return }
    core.timers.cancel(timer)
    timer = .none
    let results = trials.map { $0.result ?? nil }
    trials = []
    done(results)
  }

  /// True when the completion was one of ours.
  func complete(_ completion: Completion) -> Bool {
    guard completion.token.owner == owner else { return false }
    if let dropped = lingering.removeValue(forKey: completion.token) {
      core.kernel.close(dropped.descriptor)
      return true
    }
    let index = Int(completion.token.handle.slot)
    guard completion.token.handle.generation == serial, index < trials.count, trials[index].result == nil
    else {
      return true
    }
    switch completion.token.operation {
    case Operation.connect: connected(index, completion.result)
    case Operation.send: sent(index, completion.result)
    default: readable(index)
    }
    return true
  }

  /// True when the timer was ours: whoever has not answered by now has failed.
  func expire(_ token: Token) -> Bool {
    guard token.owner == owner else { return false }
    guard token.handle.generation == serial else { return true }
    timer = .none
    for index in trials.indices where index < trials.count && trials[index].result == nil {
      drop(index)
      fail(index, "i/o timeout")
    }
    return true
  }

  private func connected(_ index: Int, _ result: Int32) {
    guard result == 0 else {
      drop(index)
      trials[index].addresses.removeFirst()
      return trials[index].addresses.isEmpty
        ? fail(index, SystemError(code: -result).description) : connect(index)
    }
    send(index, trials[index].handshake.start())
  }

  private func send(_ index: Int, _ bytes: [UInt8]) {
    trials[index].pending = bytes
    trials[index].isSending = true
    let trial = trials[index]
    unsafe trial.pending.withUnsafeBytes { bytes in
      unsafe core.kernel.send(trial.descriptor, bytes, prompt: true, token(Operation.send, index))
    }
  }

  private func sent(_ index: Int, _ result: Int32) {
    trials[index].isSending = false
    // A handshake flight is a few hundred bytes into an empty socket buffer: a short send is a broken connection.
    guard Int(result) == trials[index].pending.count else { return end(index, "connection broken") }
    core.kernel.poll(trials[index].descriptor, for: .readable, token(Operation.read, index))
  }

  private func readable(_ index: Int) {
    var room = [UInt8](repeating: 0, count: 16 << 10)
    let trial = trials[index]
    let count = unsafe room.withUnsafeMutableBytes { unsafe core.kernel.read(trial.descriptor, into: $0) }
    if count == -Int(EAGAIN) {
      return core.kernel.poll(trial.descriptor, for: .readable, token(Operation.read, index))
    }
    guard count > 0 else {
      return end(index, count == 0 ? "EOF" : SystemError(code: Int32(-count)).description)
    }
    let step = unsafe room.withUnsafeBytes { unsafe trial.handshake.receive(.init(rebasing: $0[..<count])) }
    judge(index, step.send, step.state)
  }

  private func judge(_ index: Int, _ bytes: [UInt8], _ state: TLSHandshake.State) {
    let trial = trials[index]
    // The server's certificate decides. Whether it then also wants one of ours is between it and its clients.
    if trial.handshake.certificateVerified == true || (caFile.isEmpty && trial.handshake.sawPeer) {
      drop(index)
      return conclude(index, nil)
    }
    switch state {
    case .failed(let reason): end(index, reason)
    case .done: end(index, "certificate not verified")
    case .going where bytes.isEmpty:
      core.kernel.poll(trial.descriptor, for: .readable, token(Operation.read, index))
    case .going: send(index, bytes)
    }
  }

  private func end(_ index: Int, _ reason: String) {
    drop(index)
    fail(index, reason)
  }

  private func drop(_ index: Int) {
    guard trials[index].descriptor >= 0 else { return }
    if trials[index].isSending {
      // The kernel has yet to read the bytes: both stay until it has.
      lingering[token(Operation.send, index)] = trials[index]
      return
    }
    for operation in [Operation.connect, Operation.read] {
      core.kernel.cancel(token(operation, index), on: trials[index].descriptor)
    }
    core.kernel.close(trials[index].descriptor)
    trials[index].descriptor = -1
  }
}
