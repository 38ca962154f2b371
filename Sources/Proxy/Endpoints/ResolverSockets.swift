internal import CAres
internal import CUring
internal import Glibc
internal import Reactor
internal import Synchronization

/// The sockets of one c-ares channel, watched through the core's kernel.
///
/// c-ares opens, uses and closes its sockets through the functions here, because a descriptor that the kernel
/// has seen must also be closed by the kernel, and only once its polls have ended. Outlives its channel.
@safe final class ResolverSockets {
  /// Which operation of a socket a token stands for; 3 is the resolver's timer.
  enum Operation { static let read: UInt8 = 1, write: UInt8 = 2, timer: UInt8 = 3 }

  private struct Entry {
    var descriptor: Int32 = -1
    var generation: UInt32 = 0
    var wants: Readiness = []
    /// Polls under way.
    var armed: Readiness = []
    /// c-ares has let go of it; it is closed when nothing is armed any more.
    var closing = false
  }

  /// Generations are unique in the process: a late completion for a resolver that is gone must not be taken
  /// for one of its successor on the same core.
  private static let generations = Atomic<UInt32>(1)

  private let kernel: Kernel
  private let owner: UInt8
  private var entries: [Entry] = []
  private var ended = false
  private let functions: UnsafeMutablePointer<ares_socket_functions>
  /// The last thing heard from a server was that nobody listens there. c-ares reports a server failure as
  /// refused.
  private(set) var refused = false

  init(kernel: Kernel, owner: UInt8) {
    self.kernel = kernel
    self.owner = owner
    unsafe functions = .allocate(capacity: 1)
    unsafe functions.initialize(
      to: ares_socket_functions(
        asocket: openSocket, aclose: closeSocket, aconnect: connectSocket, arecvfrom: receiveFromSocket,
        asendv: sendToSocket))
  }

  deinit { unsafe functions.deallocate() }

  /// What c-ares gets back as the last argument of every callback.
  var argument: UnsafeMutableRawPointer { unsafe Unmanaged.passUnretained(self).toOpaque() }

  /// Makes the channel use sockets of this kind. The channel must be destroyed before this object goes.
  func serve(_ channel: OpaquePointer) { unsafe ares_set_socket_functions(channel, functions, argument) }

  // MARK: Between c-ares and the kernel

  /// Asks for every readiness that c-ares waits for and that is not asked for yet.
  func arm() {
    for index in entries.indices where entries[index].descriptor >= 0 {
      let missing = entries[index].wants.subtracting(entries[index].armed)
      entries[index].armed.formUnion(missing)
      let descriptor = entries[index].descriptor
      for (side, operation) in [(Readiness.readable, Operation.read), (.writable, Operation.write)]
      where missing.contains(side) {
        kernel.poll(descriptor, for: side, token(index, operation))
      }
    }
  }

  /// Takes in the end of a poll.
  ///
  /// - Returns: the socket and the side that is ready, if c-ares still wants to hear of it. A poll that
  ///   failed is asked for again with the next `arm`, which the timer brings at the latest.
  func take(_ completion: Completion) -> (descriptor: Int32, readiness: Readiness)? {
    let handle = completion.token.handle
    let index = Int(handle.slot)
    guard index < entries.count, entries[index].descriptor >= 0,
      entries[index].generation == handle.generation
    else { return nil }
    let side: Readiness = completion.token.operation == Operation.read ? .readable : .writable
    entries[index].armed.remove(side)
    if entries[index].closing {
      closeIfIdle(index)
      return nil
    }
    guard completion.result >= 0, entries[index].wants.contains(side) else { return nil }
    return (entries[index].descriptor, side)
  }

  /// From here on nobody will pass completions on: what is open is closed at once. A kernel that still polls
  /// drops the file when the cancellation reaches it.
  func end() {
    ended = true
    for index in entries.indices where entries[index].closing { closeIfIdle(index) }
  }

  private func token(_ index: Int, _ operation: UInt8) -> Token {
    Token(
      owner: owner, operation: operation,
      handle: Handle(slot: UInt32(index), generation: entries[index].generation))
  }

  private func closeIfIdle(_ index: Int) {
    guard entries[index].armed.isEmpty || ended else { return }
    kernel.close(entries[index].descriptor)
    entries[index] = Entry()
  }

  private func find(_ descriptor: Int32) -> Int? {
    descriptor < 0 ? nil : entries.firstIndex { $0.descriptor == descriptor }
  }

  // MARK: What c-ares calls

  fileprivate func open(_ family: Int32, _ kind: Int32, _ number: Int32) -> Int32 {
    let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = Glibc.socket(family, kind | flags, number)
    guard descriptor >= 0 else { return -1 }
    let generation = Self.generations.wrappingAdd(1, ordering: .relaxed).newValue
    let entry = Entry(descriptor: descriptor, generation: generation)
    if let free = entries.firstIndex(where: { $0.descriptor < 0 }) {
      entries[free] = entry
    } else {
      entries.append(entry)
    }
    return descriptor
  }

  fileprivate func wants(_ descriptor: Int32, _ readiness: Readiness) {
    guard let index = find(descriptor), !entries[index].closing else { return }
    entries[index].wants = readiness
  }

  fileprivate func close(_ descriptor: Int32) -> Int32 {
    guard let index = find(descriptor), !entries[index].closing else { return -1 }
    entries[index].wants = []
    entries[index].closing = true
    let armed = entries[index].armed
    if armed.contains(.readable) { kernel.cancel(token(index, Operation.read), on: descriptor) }
    if armed.contains(.writable) { kernel.cancel(token(index, Operation.write), on: descriptor) }
    closeIfIdle(index)
    return 0
  }

  /// Passes a call's result on and remembers whether a server refused.
  fileprivate func note<Result: BinaryInteger>(_ result: Result) -> Result {
    refused = result < 0 ? refused || errno == ECONNREFUSED : false
    return result
  }

  fileprivate static func from(_ argument: UnsafeMutableRawPointer?) -> ResolverSockets? {
    guard let argument = unsafe argument else { return nil }
    return unsafe Unmanaged<ResolverSockets>.fromOpaque(argument).takeUnretainedValue()
  }
}

// MARK: - In the form that c-ares wants

/// c-ares: from now on wait for this on that socket.
func socketStateChanged(
  _ argument: UnsafeMutableRawPointer?, _ descriptor: Int32, _ read: Int32, _ write: Int32
) {
  var readiness: Readiness = []
  if read != 0 { readiness.insert(.readable) }
  if write != 0 { readiness.insert(.writable) }
  unsafe ResolverSockets.from(argument)?.wants(descriptor, readiness)
}

private func openSocket(
  _ family: Int32, _ kind: Int32, _ number: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
  unsafe ResolverSockets.from(argument)?.open(family, kind, number) ?? -1
}

private func closeSocket(_ descriptor: Int32, _ argument: UnsafeMutableRawPointer?) -> Int32 {
  unsafe ResolverSockets.from(argument)?.close(descriptor) ?? -1
}

private func connectSocket(
  _ descriptor: Int32, _ address: UnsafePointer<sockaddr>?, _ length: ares_socklen_t,
  _ argument: UnsafeMutableRawPointer?
) -> Int32 {
  let result = unsafe connect(descriptor, address, length)
  if result < 0 { _ = unsafe ResolverSockets.from(argument)?.note(result) }
  return result
}

private func receiveFromSocket(
  _ descriptor: Int32, _ room: UnsafeMutableRawPointer?, _ count: Int, _ flags: Int32,
  _ address: UnsafeMutablePointer<sockaddr>?, _ length: UnsafeMutablePointer<ares_socklen_t>?,
  _ argument: UnsafeMutableRawPointer?
) -> Int {
  let result = unsafe recvfrom(descriptor, room, count, flags, address, length)
  return unsafe ResolverSockets.from(argument)?.note(result) ?? result
}

/// As `writev`, which would raise SIGPIPE on a server that hangs up.
private func sendToSocket(
  _ descriptor: Int32, _ pieces: UnsafePointer<iovec>?, _ count: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int {
  let result = unsafe rw_send_message(descriptor, pieces, count)
  guard result < 0 else { return Int(result) }
  errno = -result
  return unsafe ResolverSockets.from(argument)?.note(-1) ?? -1
}
