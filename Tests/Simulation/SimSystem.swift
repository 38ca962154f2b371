import Glibc
import Reactor

/// What one kernel interface knows of the process's descriptors, and the calls that return at once.
package class SimSystem: Kernel {
  enum Kind { case accept, receive, pollRead, connect, pollWrite }

  struct Armed {
    let kind: Kind
    let token: Token
  }

  package let network: SimNetwork
  package var faults = SimFaults()
  package internal(set) var calls = SimCalls()
  /// Room in the buffers of sockets that this process opens.
  package var socketCapacity: () -> Int = { 65_536 }

  var reads: [Int32: Armed] = [:]
  var writes: [Int32: Armed] = [:]
  /// Descriptors with a send that was not reported yet.
  var sending: Set<Int32> = []
  /// Descriptors to look at again.
  var changed: Set<Int32> = []
  var changes: [Int32] = []

  init(_ network: SimNetwork, _ buffers: BufferPool) {
    self.network = network
    super.init(buffers: buffers)
  }

  package override var now: Instant { network.now }

  func note(_ descriptor: Int32) {
    if changed.insert(descriptor).inserted { changes.append(descriptor) }
  }

  /// Takes the connection down the way some error does, and returns that error.
  func breakStream(_ socket: SimSocket, sending: Bool) -> Int {
    socket.isDisturbed = true
    socket.peer?.isDisturbed = true
    if network.random.chance(300) { return -Int(ENOMEM) }
    // Linux says EPIPE for a reset only when the peer's end had come.
    socket.fail(socket.finArrived ? EPIPE : network.random.pick(SimFaults.fatalOfStream))
    return sending ? socket.send([0]) : socket.failure()
  }

  // MARK: Calls that return at once

  package override func socket(family: Int32) -> Int32 {
    calls.sockets += 1
    if faults.nextSocket != 0 {
      defer { faults.nextSocket = 0 }
      return -faults.nextSocket
    }
    if network.random.chance(faults.scarce) { return -network.random.pick(SimFaults.scarcity) }
    let socket = network.makeSocket(capacity: socketCapacity())
    guard let descriptor = network.open(.socket(socket)) else { return -EMFILE }
    socket.changed = { [unowned self] in note(descriptor) }
    return descriptor
  }

  package override func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) {
    mustBeOpen(descriptor, "setOption")
  }

  package override func setKeepalive(_ descriptor: Int32, after silence: Instant.Span, giveUp: Instant.Span) {
    mustBeOpen(descriptor, "setKeepalive")
  }

  private func mustBeOpen(_ descriptor: Int32, _ call: String) {
    if network.entry(descriptor) == nil { network.complain("\(call) on \(descriptor), which is not open") }
  }

  package override func peerAddress(_ descriptor: Int32) -> Address? {
    guard let socket = network.socket(descriptor) else { return nil }
    return socket.isDead ? nil : socket.remote
  }

  package override func localAddress(_ descriptor: Int32) -> Address? { network.socket(descriptor)?.local }

  package override func read(_ descriptor: Int32, into room: UnsafeMutableRawBufferPointer) -> Int {
    guard let socket = network.socket(descriptor) else {
      network.complain("read on \(descriptor), which is not open")
      return -Int(EBADF)
    }
    let limit = network.random.chance(faults.mild) ? 1 + network.random.below(room.count) : room.count
    return socket.receive(into: UnsafeMutableRawBufferPointer(rebasing: room[..<limit]))
  }

  package override func acceptNow(_ listener: Int32) -> Int32 {
    guard let found = network.listener(listener) else { return -EBADF }
    return found.queue.isEmpty ? -EAGAIN : acceptOne(found)
  }

  package override func halfClose(_ descriptor: Int32) {
    mustBeOpen(descriptor, "halfClose")
    if sending.contains(descriptor) { network.complain("half-close of \(descriptor) under a send") }
    network.socket(descriptor)?.halfClose()
  }

  package override func isReset(_ descriptor: Int32) -> Bool {
    guard let socket = network.socket(descriptor) else { return false }
    return socket.isDead
  }

  package override func close(_ descriptor: Int32) { close(descriptor, reset: false) }

  package override func reset(_ descriptor: Int32) { close(descriptor, reset: true) }

  private func close(_ descriptor: Int32, reset: Bool) {
    mustBeOpen(descriptor, "close")
    if let armed = reads[descriptor] { network.complain("close of \(descriptor) under \(armed.kind)") }
    if let armed = writes[descriptor] { network.complain("close of \(descriptor) under \(armed.kind)") }
    if sending.contains(descriptor) { network.complain("close of \(descriptor) under a send") }
    if case .pipe = network.entry(descriptor) { network.complain("close of a pipe's end \(descriptor)") }
    if let socket = network.socket(descriptor) {
      if reset { socket.reset() } else { socket.close() }
    } else if let listener = network.listener(descriptor) {
      listener.holders -= 1
      if listener.holders == 0 { network.stopListening(listener) }
    }
    if network.entry(descriptor) != nil { network.table[Int(descriptor)] = nil }
  }

  // MARK: Pipes

  package override func makePipe(capacity: Int32) -> Pipe? {
    calls.pipes += 1
    guard !faults.noPipes, !network.random.chance(faults.scarce) else { return nil }
    let granted = max(4096, min(capacity, faults.pipeCapacity))
    let pipe = SimPipe(slots: Int(granted) / 4096)
    guard let readEnd = network.open(.pipe(pipe, isReadEnd: true)) else { return nil }
    guard let writeEnd = network.open(.pipe(pipe, isReadEnd: false)) else {
      network.table[Int(readEnd)] = nil
      return nil
    }
    return Pipe(readEnd: readEnd, writeEnd: writeEnd, capacity: granted)
  }

  package override func closePipe(_ pipe: Pipe) {
    for end in [pipe.readEnd, pipe.writeEnd] {
      guard case .pipe = network.entry(end) else {
        network.complain("closePipe of \(end), which is no pipe")
        continue
      }
      network.table[Int(end)] = nil
    }
  }

  package override func splice(from: Int32, to: Int32, count: Int) -> Int {
    calls.splices += 1
    if network.random.chance(faults.mild) { return -Int(network.random.pick([EAGAIN, EINTR])) }
    let most = network.random.chance(faults.mild) ? 1 + network.random.below(count) : count
    switch (network.entry(from), network.entry(to)) {
    case (.socket(let socket), .pipe(let pipe, isReadEnd: false)): return fill(pipe, from, socket, most)
    case (.pipe(let pipe, isReadEnd: true), .socket(let socket)): return drain(pipe, to, socket, most)
    default:
      network.complain("splice from \(from) to \(to)")
      return -Int(EBADF)
    }
  }

  private func fill(_ pipe: SimPipe, _ descriptor: Int32, _ socket: SimSocket, _ most: Int) -> Int {
    if let armed = reads[descriptor] { network.complain("splice from \(descriptor) under \(armed.kind)") }
    if network.random.chance(faults.fatal) { return breakStream(socket, sending: false) }
    guard pipe.freeSlots > 0 || socket.arrived.isEmpty else { return -Int(EAGAIN) }
    // Segments lie in pages of their own, mostly not full.
    let page = 512 + network.random.below(3585)
    let (count, bytes) = socket.receive(min(most, pipe.freeSlots * page))
    if count > 0 {
      pipe.bytes.append(bytes)
      pipe.freeSlots -= (count + page - 1) / page
    }
    return count
  }

  private func drain(_ pipe: SimPipe, _ descriptor: Int32, _ socket: SimSocket, _ most: Int) -> Int {
    if sending.contains(descriptor) { network.complain("splice to \(descriptor) under a send") }
    if network.random.chance(faults.fatal) { return breakStream(socket, sending: true) }
    guard !pipe.bytes.isEmpty else { return -Int(EAGAIN) }
    let room = socket.isDead || socket.isShut ? 1 : socket.room
    guard room > 0 else { return -Int(EAGAIN) }
    var bytes = pipe.bytes
    let sent = socket.send(bytes.take(min(most, room)))
    if sent > 0 {
      _ = pipe.bytes.take(sent)
      if pipe.bytes.isEmpty { pipe.freeSlots = pipe.slots }
    }
    return sent
  }

  func acceptOne(_ listener: SimListener) -> Int32 {
    if network.random.chance(faults.scarce) { return -network.random.pick(SimFaults.scarcityOfAccept) }
    if network.random.chance(faults.mild) { return -network.random.pick(SimFaults.mildOfAccept) }
    guard let descriptor = network.open(.socket(listener.queue[0])) else { return -EMFILE }
    let socket = listener.queue.removeFirst()
    socket.changed = { [unowned self] in note(descriptor) }
    return descriptor
  }
}

extension SimSocket {
  /// The pending error, taken as a call takes it.
  func failure() -> Int {
    defer { error = 0 }
    return error == 0 ? -Int(ECONNRESET) : -Int(error)
  }
}
