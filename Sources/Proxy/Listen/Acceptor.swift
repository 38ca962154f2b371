internal import Glibc
internal import Reactor

/// Takes clients in from the listening sockets of one core.
///
/// Out of descriptors, clients wait in the kernel's queue until a connection ends or a moment has passed, instead of the
/// process ending (as etcd's gateway does) or spinning on the error (as etcd's gRPC proxy does).
final class Acceptor {
  private enum Operation {
    static let accept: UInt8 = 0
    static let resume: UInt8 = 1
  }

  private static let pause = Instant.Span.milliseconds(100)

  /// A listening socket.
  private struct Listener {
    let descriptor: Int32
    /// The kernel has an accept for it.
    var isAccepting = false
  }

  /// What becomes of clients: implemented by the core that takes them.
  protocol Host: Core {
    /// A client has connected to one of the listeners; the descriptor is the host's from now on.
    func admit(_ client: Int32, from listener: Int)
    /// Accepting pauses for want of descriptors or memory.
    func acceptingPaused(_ error: SystemError)
    /// The last listener is closed: nobody new can come.
    func acceptingEnded()
  }

  private unowned let host: any Host
  private let owner: UInt8
  /// What the host calls the first of the listeners.
  private let first: Int
  private var listeners: [Listener]
  private var isDraining = false
  /// While accepting pauses.
  private(set) var pauseTimer = TimerWheel.Timer.none

  /// - Parameters:
  ///   - owner: of the tokens that the host passes on to `complete` and `expire`.
  ///   - first: the number of the first listener, for a host with several acceptors.
  init(host: any Host, owner: UInt8, listeners: [Int32], first: Int = 0) {
    self.host = host
    self.owner = owner
    self.first = first
    self.listeners = listeners.map { Listener(descriptor: $0) }
  }

  private func token(_ index: Int) -> Token {
    Token(owner: owner, operation: Operation.accept, handle: Handle(slot: UInt32(index), generation: 0))
  }

  func start() {
    for index in listeners.indices where !listeners[index].isAccepting && listeners[index].descriptor >= 0 {
      listeners[index].isAccepting = true
      host.kernel.accept(listeners[index].descriptor, token(index))
    }
  }

  func complete(_ completion: Completion) {
    let index = Int(completion.token.handle.slot)
    if completion.result >= 0 { host.admit(completion.result, from: first + index) }
    guard !completion.more, index < listeners.count else { return }
    listeners[index].isAccepting = false
    if isDraining { return close(index) }
    switch completion.result {
    case 0..., -ECONNABORTED, -EINTR, -EPROTO, -EAGAIN:
      // An accept that ended together with a good one, or a connection that died in the queue: go on.
      start()
    case -ECANCELED where pauseTimer != .none: break
    case -ECANCELED: start()
    default: pause(SystemError(code: -completion.result))
    }
  }

  func expire(_ token: Token) { resume() }

  // MARK: Want of descriptors

  /// Nobody is taken in until a descriptor comes free (`resume`) or a moment has passed.
  func pause(_ error: SystemError) {
    guard pauseTimer == .none, !isDraining else { return }
    host.acceptingPaused(error)
    for index in listeners.indices where listeners[index].isAccepting {
      host.kernel.cancel(token(index), on: listeners[index].descriptor)
    }
    schedulePause()
  }

  /// The pause is over, or a descriptor came free.
  func resume() {
    guard pauseTimer != .none else { return }
    host.timers.cancel(pauseTimer)
    pauseTimer = .none
    guard !isDraining else { return }
    let isEnough = takeOneByOne()
    // One of those just taken may have found no descriptor, which has paused accepting again.
    guard pauseTimer == .none else { return }
    if isEnough { start() } else { schedulePause() }
  }

  /// Takes clients from the queue as long as there is a descriptor for their endpoint too; false when there is not.
  ///
  /// The kernel's own accept would go on to the last descriptor, and then nobody could be connected.
  private func takeOneByOne() -> Bool {
    for (index, listener) in listeners.enumerated() where !listener.isAccepting && listener.descriptor >= 0 {
      while true {
        let spare = host.kernel.socket(family: AF_INET)
        guard spare >= 0 else { return false }
        let client = host.kernel.acceptNow(listener.descriptor)
        host.kernel.close(spare)
        if client == -EMFILE || client == -ENFILE { return false }
        guard client >= 0 else { break }
        host.admit(client, from: first + index)
      }
    }
    return true
  }

  private func schedulePause() {
    pauseTimer = host.timers.schedule(
      at: host.now + Self.pause,
      Token(owner: owner, operation: Operation.resume, handle: Handle(slot: 0, generation: 0)))
  }

  // MARK: Draining

  /// Closes the listeners, once everybody who got through to them has been taken in.
  func drain() {
    guard !isDraining else { return }
    takeQueued()
    isDraining = true
    resume()  // Which, while draining, only calls the pause off.
    for index in listeners.indices {
      if listeners[index].isAccepting {
        host.kernel.cancel(token(index), on: listeners[index].descriptor)
      } else {
        close(index)
      }
    }
    tellWhenDeaf()
  }

  /// Clients that the kernel has already accepted for us would be reset with the listener: they are served first.
  private func takeQueued() {
    for (index, listener) in listeners.enumerated() where listener.descriptor >= 0 {
      var client = host.kernel.acceptNow(listener.descriptor)
      while client >= 0 {
        host.admit(client, from: first + index)
        client = host.kernel.acceptNow(listener.descriptor)
      }
    }
  }

  private func close(_ index: Int) {
    guard listeners[index].descriptor >= 0 else { return }
    host.kernel.close(listeners[index].descriptor)
    listeners[index] = Listener(descriptor: -1)
    tellWhenDeaf()
  }

  /// No listener is open.
  var isDeaf: Bool { listeners.allSatisfy { $0.descriptor < 0 } }

  private func tellWhenDeaf() {
    if isDeaf { host.acceptingEnded() }
  }
}
