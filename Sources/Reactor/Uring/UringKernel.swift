internal import CUring
internal import Glibc

/// The io_uring backend: one ring a core, one `io_uring_enter` a turn.
@safe public final class UringKernel: Kernel {
  /// Room for sends in one turn before an early submit; pieces are shared by the gathered ones.
  private enum Room {
    static let entries: UInt32 = 1024
    static let sends = 1024
    static let pieces = 4096
    static let piecesASend = 64
    static let drained = 256
  }

  /// Operations of the backend itself (owner 0).
  private enum Own {
    static let send: UInt8 = 3
    static let foreignWake: UInt8 = 4
    static let foreignWakeToken = Token(
      owner: 0, operation: foreignWake, handle: Handle(slot: 0, generation: 0))
  }

  private struct Send {
    var token: Token
    var total: Int32
  }

  private var ring: Ring
  private let drained: UnsafeMutablePointer<rw_completion>
  private let sends: UnsafeMutablePointer<Send>
  private var sendCount = 0
  /// Where the sends of the turn stand among what has arrived.
  private var firstSend = 0
  private var promptSend = false
  private let headers: UnsafeMutablePointer<msghdr>
  private let pieces: UnsafeMutablePointer<iovec>
  private var pieceCount = 0
  private let connectNames: UnsafeMutablePointer<sockaddr_storage>
  private var connectCount = 0
  private static let connectRoom = 64
  private let wakeDescriptor: Int32
  private let ringDescriptor: Int32
  /// What this kernel granted, in words for the log.
  public let features: [String]

  /// Sets up the ring of the calling thread's core.
  ///
  /// - Throws: why this kernel or container has no io_uring for us.
  public init(core buffers: BufferPool) throws(SystemError) {
    ring = try Ring(entries: Room.entries, buffers: buffers)
    features = ring.features
    ringDescriptor = ring.descriptor
    unsafe drained = .allocate(capacity: Room.drained)
    unsafe sends = .allocate(capacity: Room.sends)
    unsafe headers = .allocate(capacity: Room.sends)
    unsafe pieces = .allocate(capacity: Room.pieces)
    unsafe connectNames = .allocate(capacity: Self.connectRoom)
    wakeDescriptor = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    super.init(buffers: buffers)
    guard wakeDescriptor >= 0 else { throw SystemError.last }
    poll(wakeDescriptor, for: .readable, Own.foreignWakeToken)
  }

  deinit {
    Glibc.close(wakeDescriptor)
    unsafe drained.deallocate()
    unsafe sends.deallocate()
    unsafe headers.deallocate()
    unsafe pieces.deallocate()
    unsafe connectNames.deallocate()
  }

  private func withEntry(_ token: Token, _ prepare: (UnsafeMutablePointer<io_uring_sqe>) -> Void) {
    guard let entry = unsafe ring.entry() else {
      // The kernel took nothing (ENOMEM): the operation ends as if it had been tried.
      arrived.append(Completion(token: token, result: -ENOMEM))
      return
    }
    unsafe prepare(entry)
  }

  public override func accept(_ listener: Int32, _ token: Token) {
    unsafe withEntry(token) { entry in
      let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
      unsafe io_uring_prep_multishot_accept(entry, listener, nil, nil, flags)
      unsafe entry.pointee.user_data = token.rawValue
    }
  }

  public override func connect(_ descriptor: Int32, to address: Address, _ token: Token) {
    // The kernel copies the name during submit; more connects than names are sent off early.
    if connectCount == Self.connectRoom { flush() }
    let slot = unsafe connectNames + connectCount
    connectCount += 1
    let length = unsafe address.withSocketAddress { name, length in
      unsafe UnsafeMutableRawPointer(slot).copyMemory(from: name, byteCount: Int(length))
      return length
    }
    unsafe withEntry(token) { entry in
      let name = unsafe UnsafeRawPointer(slot).assumingMemoryBound(to: sockaddr.self)
      unsafe io_uring_prep_connect(entry, descriptor, name, length)
      unsafe entry.pointee.user_data = token.rawValue
    }
  }

  public override func receive(_ descriptor: Int32, _ token: Token) {
    unsafe withEntry(token) { entry in unsafe ring.prepareReceive(entry, descriptor, token) }
  }

  public override func send(_ descriptor: Int32, _ queue: borrowing BufferQueue, prompt: Bool, _ token: Token)
  {
    if sendCount == Room.sends || pieceCount + Room.piecesASend > Room.pieces { flush() }
    let start = unsafe pieces + pieceCount
    let (count, total) = unsafe queue.gather(into: start, room: Room.piecesASend, in: buffers)
    // Success would be silent, and what did not fit into this send would lie until something else wakes the core.
    let isCut = total < queue.byteCount
    let prompt = prompt || isCut
    if count == 1 {
      // SEND needs no message header, and is a little cheaper than SENDMSG.
      let bytes = unsafe UnsafeRawBufferPointer(start: start.pointee.iov_base, count: total)
      return unsafe send(descriptor, bytes, prompt: prompt, token)
    }
    pieceCount += count
    let header = unsafe headers + sendCount
    unsafe header.initialize(to: msghdr())
    unsafe header.pointee.msg_iov = start
    unsafe header.pointee.msg_iovlen = count
    unsafe withSend(token, total, prompt) { entry, own in
      unsafe rw_prep_sendmsg(entry, descriptor, header, own)
    }
  }

  public override func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, prompt: Bool, _ token: Token
  ) {
    if sendCount == Room.sends { flush() }
    unsafe withSend(token, bytes.count, prompt) { entry, own in
      unsafe rw_prep_send(entry, descriptor, bytes.baseAddress, bytes.count, own)
    }
  }

  private func withSend(
    _ token: Token, _ total: Int, _ prompt: Bool,
    _ prepare: (UnsafeMutablePointer<io_uring_sqe>, UInt64) -> Void
  ) {
    guard let entry = unsafe ring.entry() else {
      arrived.append(Completion(token: token, result: -ENOMEM))
      return
    }
    unsafe (sends + sendCount).initialize(to: Send(token: token, total: Int32(clamping: total)))
    let own = Token(owner: 0, operation: Own.send, handle: Handle(slot: UInt32(sendCount), generation: 0))
    sendCount += 1
    promptSend = promptSend || prompt
    unsafe prepare(entry, own.rawValue)
  }

  public override func poll(_ descriptor: Int32, for readiness: Readiness, _ token: Token) {
    unsafe withEntry(token) { entry in
      unsafe io_uring_prep_poll_add(entry, descriptor, UInt32(bitPattern: readiness.rawValue))
      unsafe entry.pointee.user_data = token.rawValue
    }
  }

  public override func cancel(_ token: Token, on descriptor: Int32) {
    unsafe withEntry(.ignored) { entry in
      unsafe rw_prep_cancel(entry, token.rawValue, Token.ignored.rawValue)
    }
  }

  public override func release(_ buffer: UInt16) {
    buffers.held -= 1
    unsafe ring.provide(buffer, buffers.memory(buffer))
  }

  public override func wake(from: Kernel?) {
    if let peer = from as? UringKernel {
      // From core to core: a message between rings, which costs no system call of its own.
      unsafe peer.withEntry(.ignored) { entry in
        unsafe rw_prep_message(entry, ringDescriptor, Token.wake.rawValue, Token.ignored.rawValue)
      }
    } else {
      eventfd_write(wakeDescriptor, 1)
    }
  }

  public override func turn(until deadline: Instant) {
    ring.publishBuffers()
    let ready = promptSend || !arrived.isEmpty || buffersRunLow
    ring.enter(waitNanoseconds: ready ? nil : (deadline - now).nanoseconds)
    collect()
    deliver()
  }

  /// A sleeping core holds the buffers of its last sends; it does not sleep on so many that receives would starve.
  private var buffersRunLow: Bool { sendCount > 0 && buffers.held > buffers.count / 2 }

  /// Sends everything off in the middle of a turn, because some room is full.
  private func flush() {
    ring.publishBuffers()
    ring.enter(waitNanoseconds: nil)
    collect()
  }

  /// Takes every completion there is; only then are the sends without one known to have gone out in full, provided that
  /// the kernel has taken them, which it may put off for want of memory.
  ///
  /// The sends stand first, since whatever else has come may be the answer to them. Each is assumed to be a success until
  /// its own completion says otherwise.
  private func collect() {
    firstSend = arrived.count
    for index in 0..<sendCount {
      let send = unsafe sends[index]
      arrived.append(Completion(token: send.token, result: send.total))
    }
    drain()
    while ring.isBehind {
      sched_yield()
      ring.enter(waitNanoseconds: nil)
      drain()
    }
    sendCount = 0
    pieceCount = 0
    connectCount = 0
    promptSend = false
  }

  private func drain() {
    var count = unsafe ring.drain(into: drained, Room.drained)
    while count > 0 {
      for index in 0..<count { note(unsafe drained[index]) }
      count = unsafe ring.drain(into: drained, Room.drained)
    }
  }

  private func note(_ completion: rw_completion) {
    let token = Token(rawValue: completion.user_data)
    switch token.owner == 0 ? token.operation : 15 {
    case Token.ignored.operation: break
    case Own.send: arrived.setResult(completion.result, at: firstSend + Int(token.handle.slot))
    case Own.foreignWake:
      var count: eventfd_t = 0
      unsafe eventfd_read(wakeDescriptor, &count)
      poll(wakeDescriptor, for: .readable, Own.foreignWakeToken)
      arrived.append(Completion(token: .wake, result: 0))
    default:
      var buffer = BufferPool.none
      if completion.flags & UInt32(RW_CQE_BUFFER) != 0 {
        buffer = UInt16(truncatingIfNeeded: completion.flags >> UInt32(RW_CQE_BUFFER_SHIFT))
        buffers.held += 1
      }
      let more = completion.flags & UInt32(RW_CQE_MORE) != 0
      arrived.append(Completion(token: token, result: completion.result, more: more, buffer: buffer))
    }
  }
}
