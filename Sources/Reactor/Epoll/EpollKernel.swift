internal import CUring
internal import Glibc

/// The epoll backend, for kernels and containers that refuse io_uring. Same operations, same completions.
///
/// Every descriptor is registered once, edge-triggered for both directions; an operation is tried when its side is
/// believed ready, and a refusal (`EAGAIN`) waits for the next edge. So steady traffic needs no `epoll_ctl` at all.
@safe public final class EpollKernel: Kernel {
  private enum Operation: UInt8 { case none, accept, receive, pollRead, connect, pollWrite }

  /// One descriptor's two sides.
  private struct Slot {
    var read: Operation = .none
    var write: Operation = .none
    var readReady = true
    var writeReady = true
    var hungUp = false
    var registered = false
    var queued = false
    var readToken = Token.ignored
    var writeToken = Token.ignored
  }

  private static let eventRoom = 512
  /// Pieces of one receive: 16 KiB with 4 KiB buffers, as much as a bulk sender fills between two turns.
  private static let piecesAReceive = 4
  private static let piecesASend = 64

  private let epoll: Int32
  private let wakeDescriptor: Int32
  private let events: UnsafeMutablePointer<epoll_event>
  private let pieces: UnsafeMutablePointer<iovec>
  private var slots: [Slot] = []
  private var work: [Int32] = []
  private var nextWork: [Int32] = []
  private var free: [UInt16]

  /// - Throws: `EMFILE` or `ENOMEM`.
  public init(core buffers: BufferPool) throws(SystemError) {
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    wakeDescriptor = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    unsafe events = .allocate(capacity: Self.eventRoom)
    unsafe pieces = .allocate(capacity: Self.piecesASend)
    free = (0..<UInt16(buffers.count)).reversed()
    super.init(buffers: buffers)
    guard epoll >= 0, wakeDescriptor >= 0 else { throw SystemError.last }
    control(EPOLL_CTL_ADD, wakeDescriptor, EPOLLIN.rawValue)
  }

  deinit {
    if epoll >= 0 { Glibc.close(epoll) }
    if wakeDescriptor >= 0 { Glibc.close(wakeDescriptor) }
    unsafe events.deallocate()
    unsafe pieces.deallocate()
  }

  // MARK: Asking

  public override func accept(_ listener: Int32, _ token: Token) { armRead(listener, .accept, token) }

  public override func receive(_ descriptor: Int32, _ token: Token) { armRead(descriptor, .receive, token) }

  public override func poll(_ descriptor: Int32, for readiness: Readiness, _ token: Token) {
    if readiness.contains(.readable) {
      armRead(descriptor, .pollRead, token)
    } else {
      // Asked only after the socket was found full, so that the next edge is the answer.
      armWrite(descriptor, .pollWrite, token)
    }
  }

  public override func connect(_ descriptor: Int32, to address: Address, _ token: Token) {
    let code = unsafe address.withSocketAddress { name, length in
      unsafe Glibc.connect(descriptor, name, length) == 0 ? 0 : errno
    }
    guard code == EINPROGRESS else {
      arrived.append(Completion(token: token, result: -code))
      return
    }
    armWrite(descriptor, .connect, token)
  }

  public override func send(_ descriptor: Int32, _ queue: borrowing BufferQueue, prompt: Bool, _ token: Token)
  {
    let (count, _) = unsafe queue.gather(into: pieces, room: Self.piecesASend, in: buffers)
    sent(descriptor, unsafe rw_send_message(descriptor, pieces, Int32(count)), token)
  }

  public override func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, prompt: Bool, _ token: Token
  ) {
    unsafe pieces.pointee = iovec(
      iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
    sent(descriptor, unsafe rw_send_message(descriptor, pieces, 1), token)
  }

  private func sent(_ descriptor: Int32, _ result: Int32, _ token: Token) {
    arrived.append(Completion(token: token, result: result))
  }

  public override func cancel(_ token: Token, on descriptor: Int32) {
    guard descriptor >= 0, Int(descriptor) < slots.count else { return }
    if slots[Int(descriptor)].read != .none, slots[Int(descriptor)].readToken == token {
      slots[Int(descriptor)].read = .none
      arrived.append(Completion(token: token, result: -ECANCELED))
    } else if slots[Int(descriptor)].write != .none, slots[Int(descriptor)].writeToken == token {
      slots[Int(descriptor)].write = .none
      arrived.append(Completion(token: token, result: -ECANCELED))
    }
  }

  public override func release(_ buffer: UInt16) {
    buffers.held -= 1
    free.append(buffer)
  }

  public override func close(_ descriptor: Int32) {
    if descriptor >= 0, Int(descriptor) < slots.count {
      let queued = slots[Int(descriptor)].queued
      slots[Int(descriptor)] = Slot()
      slots[Int(descriptor)].queued = queued
    }
    super.close(descriptor)
  }

  public override func wake(from: Kernel?) { eventfd_write(wakeDescriptor, 1) }

  // MARK: A turn

  public override func turn(until deadline: Instant) {
    let busy = !arrived.isEmpty || !work.isEmpty
    wait(milliseconds: busy ? 0 : milliseconds(until: deadline))
    // New work that this pass makes (a receive that was not exhausted) waits for the next turn: turns stay short.
    swap(&work, &nextWork)
    for descriptor in nextWork {
      slots[Int(descriptor)].queued = false
      perform(descriptor)
    }
    nextWork.removeAll(keepingCapacity: true)
    deliver()
  }

  private func milliseconds(until deadline: Instant) -> Int32 {
    if deadline == .distantFuture { return -1 }
    return Int32(clamping: ((deadline - now).nanoseconds &+ 999_999) / 1_000_000)
  }

  private func wait(milliseconds: Int32) {
    let count = unsafe epoll_wait(epoll, events, Int32(Self.eventRoom), milliseconds)
    for index in 0..<max(0, Int(count)) {
      let happened = unsafe events[index].events
      let descriptor = unsafe events[index].data.fd
      if descriptor == wakeDescriptor {
        var rings: eventfd_t = 0
        unsafe eventfd_read(wakeDescriptor, &rings)
        arrived.append(Completion(token: .wake, result: 0))
        continue
      }
      guard Int(descriptor) < slots.count else { continue }
      let ended = happened & (EPOLLHUP.rawValue | EPOLLERR.rawValue | EPOLLRDHUP.rawValue) != 0
      let broken = happened & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
      if happened & EPOLLIN.rawValue != 0 || ended { slots[Int(descriptor)].readReady = true }
      if happened & EPOLLOUT.rawValue != 0 || broken { slots[Int(descriptor)].writeReady = true }
      if ended { slots[Int(descriptor)].hungUp = true }
      enqueue(descriptor)
    }
  }

  private func enqueue(_ descriptor: Int32) {
    guard !slots[Int(descriptor)].queued else { return }
    slots[Int(descriptor)].queued = true
    work.append(descriptor)
  }

  private func armRead(_ descriptor: Int32, _ operation: Operation, _ token: Token) {
    register(descriptor)
    slots[Int(descriptor)].read = operation
    slots[Int(descriptor)].readToken = token
    // A poll asks about now, not about the last edge: data may have been left unread since.
    if operation == .pollRead { slots[Int(descriptor)].readReady = true }
    if slots[Int(descriptor)].readReady { enqueue(descriptor) }
  }

  private func armWrite(_ descriptor: Int32, _ operation: Operation, _ token: Token) {
    register(descriptor)
    slots[Int(descriptor)].write = operation
    slots[Int(descriptor)].writeToken = token
    slots[Int(descriptor)].writeReady = true
    enqueue(descriptor)
  }

  private func register(_ descriptor: Int32) {
    while Int(descriptor) >= slots.count {
      slots.append(contentsOf: repeatElement(Slot(), count: max(64, slots.count)))
    }
    guard !slots[Int(descriptor)].registered else { return }
    slots[Int(descriptor)].registered = true
    control(
      EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
    )
  }

  private func control(_ operation: Int32, _ descriptor: Int32, _ interest: UInt32) {
    var event = unsafe epoll_event()
    unsafe event.events = interest
    unsafe event.data.fd = descriptor
    unsafe epoll_ctl(epoll, operation, descriptor, &event)
  }

  // MARK: Doing

  private func perform(_ descriptor: Int32) {
    let slot = slots[Int(descriptor)]
    if slot.readReady {
      switch slot.read {
      case .accept: performAccept(descriptor, slot.readToken)
      case .receive: performReceive(descriptor, slot.readToken)
      case .pollRead: performPoll(descriptor, .readable)
      default: break
      }
    }
    if slot.writeReady {
      switch slot.write {
      case .connect: performConnect(descriptor)
      case .pollWrite: performPoll(descriptor, .writable)
      default: break
      }
    }
  }

  private func performAccept(_ listener: Int32, _ token: Token) {
    let accepted = rw_accept(listener)
    if accepted == -EAGAIN {
      slots[Int(listener)].readReady = false
    } else if accepted == -EINTR || accepted == -ECONNABORTED {
      enqueue(listener)
    } else if accepted < 0 {
      slots[Int(listener)].read = .none
      arrived.append(Completion(token: token, result: accepted))
    } else {
      enqueue(listener)
      arrived.append(Completion(token: token, result: accepted, more: true))
    }
  }

  private func performReceive(_ descriptor: Int32, _ token: Token) {
    let pieceCount = min(Self.piecesAReceive, free.count)
    guard pieceCount > 0 else { return endReceive(descriptor, -ENOBUFS) }
    for piece in 0..<pieceCount {
      let memory = unsafe buffers.memory(free[free.count - 1 - piece])
      unsafe pieces[piece] = iovec(iov_base: memory.baseAddress, iov_len: memory.count)
    }
    let received = unsafe rw_receive_message(descriptor, pieces, Int32(pieceCount))
    if received == -EAGAIN {
      slots[Int(descriptor)].readReady = false
    } else if received == -EINTR {
      enqueue(descriptor)
    } else if received <= 0 {
      endReceive(descriptor, received)
    } else {
      handOut(Int(received), token)
      // Less than asked for means drained, and the next edge will tell; but an end that came along has had its edge.
      if Int(received) == pieceCount * buffers.size || slots[Int(descriptor)].hungUp {
        enqueue(descriptor)
      } else {
        slots[Int(descriptor)].readReady = false
      }
    }
  }

  private func handOut(_ received: Int, _ token: Token) {
    var left = received
    while left > 0, let buffer = free.popLast() {
      buffers.held += 1
      let length = min(left, buffers.size)
      arrived.append(Completion(token: token, result: Int32(length), more: true, buffer: buffer))
      left -= length
    }
  }

  private func endReceive(_ descriptor: Int32, _ result: Int32) {
    slots[Int(descriptor)].read = .none
    arrived.append(Completion(token: slots[Int(descriptor)].readToken, result: result))
  }

  private func performConnect(_ descriptor: Int32) {
    var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard unsafe Glibc.poll(&entry, 1, 0) == 1 else {
      slots[Int(descriptor)].writeReady = false
      return
    }
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
    slots[Int(descriptor)].write = .none
    arrived.append(Completion(token: slots[Int(descriptor)].writeToken, result: -code))
  }

  private func performPoll(_ descriptor: Int32, _ readiness: Readiness) {
    var entry = pollfd(fd: descriptor, events: Int16(readiness.rawValue), revents: 0)
    let ready = unsafe Glibc.poll(&entry, 1, 0) == 1
    let reading = readiness == .readable
    guard ready else {
      if reading {
        slots[Int(descriptor)].readReady = false
      } else {
        slots[Int(descriptor)].writeReady = false
      }
      return
    }
    let token = reading ? slots[Int(descriptor)].readToken : slots[Int(descriptor)].writeToken
    if reading { slots[Int(descriptor)].read = .none } else { slots[Int(descriptor)].write = .none }
    arrived.append(Completion(token: token, result: Int32(entry.revents)))
  }
}
