internal import Glibc
internal import Reactor

/// What the gateway does on one core: accepts clients, finds each an endpoint, and moves bytes both ways.
///
/// The files beside this one hold its parts: `+Accept`, `+Connect`, `+Relay`, `+End`. Here is the dispatch.
final class GatewayCore: Core {
  /// Who a completion belongs to.
  enum Owner {
    static let session: UInt8 = 1
    static let listener: UInt8 = 2
    static let core: UInt8 = 3
  }

  /// A session's operations; the lowest bit is the direction, or which of the two attempts.
  enum Operation {
    static let receive: UInt8 = 0
    static let send: UInt8 = 2
    static let pollSource: UInt8 = 4
    static let pollDestination: UInt8 = 6
    static let connect: UInt8 = 8
    static let header: UInt8 = 10
    static let timer: UInt8 = 12
  }

  let options: GatewayOptions
  let shared: GatewayShared
  let sessions: Slab<Session>
  let log: Log
  private(set) lazy var acceptor = Acceptor(host: self, owner: Owner.listener, listeners: listeners)
  private let listeners: [Int32]
  var table: EndpointTable
  var pipes = PipePool()
  var gate = Gate()
  /// Sessions with something to do before the turn ends.
  var touched: [Handle] = []
  /// Sessions whose receive ran out of buffers.
  var starved: [Handle] = []
  /// Sessions that wait for a descriptor to connect with.
  var waiting: [Handle] = []
  var drainDeadline: Instant?
  var sweepTimer = TimerWheel.Timer.none

  init(index: Int, kernel: Kernel, shared: GatewayShared, table: EndpointTable, listeners: [Int32])
    throws(SystemError)
  {
    self.shared = shared
    options = shared.options
    log = shared.log
    self.table = table
    sessions = try Slab(capacity: Limits.connectionsACore)
    self.listeners = listeners
    super.init(index: index, kernel: kernel)
    touched.reserveCapacity(1024)
    starved.reserveCapacity(Limits.receiveBuffers)
    acceptor.start()
  }

  override func complete(_ completion: Completion) {
    switch completion.token.owner {
    case Owner.session: completeSession(completion)
    case Owner.listener: acceptor.complete(completion)
    default: break
    }
  }

  private func completeSession(_ completion: Completion) {
    let handle = completion.token.handle
    let found: Void? = sessions.edit(handle) { session in
      let operation = completion.token.operation
      let second = operation & 1 == 1
      switch operation & ~1 {
      case Operation.connect: connectCompleted(&session, handle, second, completion.result)
      case Operation.header: headerReadable(&session, handle, completion.result)
      default: relayCompleted(&session, handle, completion, second ? .down : .up)
      }
      touch(&session, handle)
    }
    if found == nil, completion.buffer != BufferPool.none { kernel.release(completion.buffer) }
  }

  override func expire(_ token: Token) {
    switch token.owner {
    case Owner.session:
      _ = sessions.edit(token.handle) { session in
        session.timer = .none
        sessionTimerFired(&session, token.handle)
        touch(&session, token.handle)
      }
    case Owner.listener: acceptor.expire(token)
    default: sweep()
    }
  }

  override func woken() {
    shared.group.links[index].doorbell.answer()
    while let message = shared.group.links[index].mailbox.pop() { handle(message) }
  }

  private func handle(_ message: CoreMessage) {
    switch message {
    case .table(let newer): table = newer
    case .endpointHung(let slot): endSessions(of: slot)
    case .drain(let deadline): startDraining(until: deadline)
    case .stop: stopAtOnce()
    case .ping: shared.group.links[index].answerPing()
    }
  }

  override func ended() { pipes.closeAll(kernel) }

  /// Puts the session on the list of those to look at before the turn ends.
  func touch(_ session: inout Session, _ handle: Handle) {
    guard !session.isTouched else { return }
    session.isTouched = true
    touched.append(handle)
  }

  override func finishTurn() {
    // By index: ending a session may touch none, but connecting to the next endpoint at once may touch its own again.
    var next = 0
    while next < touched.count {
      settle(touched[next])
      next += 1
    }
    touched.removeAll(keepingCapacity: true)
    feedStarved()
    if gate.isDrained { isFinished = true }
  }

  /// Lets a session do what its events allow, and removes it when it is over.
  private func settle(_ handle: Handle) {
    let isOver = sessions.edit(handle) { session in
      session.isTouched = false
      drive(&session, handle)
      return session.phase == .ending && !session.isInFlight
    }
    if isOver == true { remove(handle) }
  }

  /// Arms the receives that had ended for want of buffers, now that some are free.
  private func feedStarved() {
    guard !starved.isEmpty, kernel.buffers.held < kernel.buffers.count else { return }
    let waiting = starved
    starved.removeAll(keepingCapacity: true)
    for handle in waiting {
      _ = sessions.edit(handle) { session in
        session.up.buffersFreed()
        session.down.buffersFreed()
        touch(&session, handle)
      }
    }
    for handle in touched { settle(handle) }
    touched.removeAll(keepingCapacity: true)
  }

  func token(_ operation: UInt8, _ handle: Handle) -> Token {
    Token(owner: Owner.session, operation: operation, handle: handle)
  }
}
