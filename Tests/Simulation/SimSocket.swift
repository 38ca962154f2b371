import Glibc
import Reactor

/// One end of a stream connection as Linux's TCP has it: bounded room, FIN after the last byte, RST, `sk_err`.
package final class SimSocket {
  unowned let network: SimNetwork
  package internal(set) var local: Address?
  package internal(set) var remote: Address?
  package internal(set) var peer: SimSocket?
  /// Who hears of changes: a kernel's operations, or a scripted program.
  package var changed: (() -> Void)?

  /// Bytes that came and were not read yet.
  package private(set) var arrived = ByteFIFO()
  /// The peer's FIN came after the last byte.
  package private(set) var finArrived = false
  /// The pending error; the first call that returns it clears it, and what follows sees only a dead connection.
  var error: Int32 = 0
  package private(set) var isDead = false
  package private(set) var isShut = false
  package private(set) var isClosed = false
  /// An injected fault hit this end: nothing is promised any more for the connection.
  package var isDisturbed = false
  /// This end cut the connection, or refused what came after its close.
  package private(set) var didReset = false
  /// Bytes on the wire to the peer and unread over there together never exceed this.
  var capacity: Int
  private var onTheWire = 0
  private var lastArrival: UInt64 = 0
  private var epoch = 0

  init(_ network: SimNetwork, capacity: Int) {
    self.network = network
    self.capacity = capacity
  }

  package var isConnected: Bool { peer != nil }

  var room: Int { max(0, capacity - onTheWire - (peer?.arrived.count ?? 0)) }

  /// As `poll(2)` has it: writable only when a third is free.
  package var isWritable: Bool { isDead || isShut || error != 0 || (peer != nil && 3 * room >= capacity) }
  package var isReadable: Bool { isDead || finArrived || error != 0 || !arrived.isEmpty }

  // MARK: Calls of the owner

  /// Bytes taken, or a negative errno.
  package func send(_ bytes: UnsafeRawBufferPointer) -> Int {
    if error != 0 { return takeError() }
    guard !isDead, !isShut, let peer else { return -Int(EPIPE) }
    let count = min(bytes.count, room)
    guard count > 0 else { return bytes.isEmpty ? 0 : -Int(EAGAIN) }
    let piece = Array(bytes[..<count])
    onTheWire += count
    let epoch = epoch
    arrive { [self] in
      guard epoch == self.epoch else { return }
      onTheWire -= count
      peer.take(piece)
    }
    return count
  }

  package func send(_ bytes: [UInt8]) -> Int { bytes.withUnsafeBytes { send($0) } }

  /// Bytes read, 0 at the end, or a negative errno.
  package func receive(into room: UnsafeMutableRawBufferPointer) -> Int {
    if !arrived.isEmpty {
      defer { peer?.changed?() }
      return arrived.take(into: room)
    }
    return receiveNothing()
  }

  package func receive(_ limit: Int) -> (result: Int, bytes: [UInt8]) {
    guard !arrived.isEmpty else { return (receiveNothing(), []) }
    let bytes = arrived.take(limit)
    peer?.changed?()
    return (bytes.count, bytes)
  }

  private func receiveNothing() -> Int {
    if finArrived { return 0 }
    if error != 0 { return takeError() }
    return isDead ? 0 : -Int(EAGAIN)
  }

  private func takeError() -> Int {
    defer { error = 0 }
    return -Int(error)
  }

  /// SHUT_WR.
  package func halfClose() {
    guard !isShut, !isDead, let peer else { return }
    isShut = true
    let epoch = epoch
    arrive { [self] in
      if epoch == self.epoch { peer.takeFin() }
    }
  }

  /// Closes; unread bytes make it a reset, as on Linux.
  package func close() {
    guard !isClosed else { return }
    let unread = !arrived.isEmpty
    isClosed = true
    changed = nil
    if unread { sendReset() } else { halfClose() }
    arrived.removeAll()
  }

  /// Closes with a reset.
  package func reset() {
    guard !isClosed else { return }
    isClosed = true
    changed = nil
    sendReset()
    arrived.removeAll()
  }

  private func sendReset() {
    didReset = true
    guard !isDead, let peer else { return }
    isDead = true
    // What is still on the wire may get lost with the connection.
    if network.random.chance(500) { loseWire() }
    arrive { peer.takeReset() }
  }

  /// The connection dies under its owner, who finds `code`; the peer is not told.
  package func fail(_ code: Int32) {
    guard !isDead else { return }
    isDead = true
    error = code
    loseWire()
    changed?()
  }

  private func loseWire() {
    epoch += 1
    onTheWire = 0
  }

  // MARK: What comes over the wire

  private func arrive(_ body: @escaping () -> Void) {
    lastArrival = max(lastArrival + 1, network.clock + network.latency())
    network.at(lastArrival, body)
  }

  private func take(_ bytes: [UInt8]) {
    guard !isDead, !isClosed else {
      // Nobody is there to read it.
      (isDead, didReset) = (true, true)
      if let peer { arrive { peer.takeReset() } }
      return
    }
    arrived.append(bytes)
    changed?()
  }

  private func takeFin() {
    guard !isDead else { return }
    finArrived = true
    changed?()
  }

  func takeReset() {
    guard !isDead else { return }
    isDead = true
    error = finArrived ? EPIPE : ECONNRESET
    loseWire()
    if !finArrived, network.random.chance(300) { arrived.removeAll() }
    changed?()
  }
}

/// A listening socket with its queue of connections nobody has accepted yet.
package final class SimListener {
  let address: Address
  let backlog: Int
  var queue: [SimSocket] = []
  var holders = 0
  package var changed: [() -> Void] = []

  init(address: Address, backlog: Int) {
    self.address = address
    self.backlog = backlog
  }

  /// The oldest waiting connection, for a scripted program.
  package func accept() -> SimSocket? { queue.isEmpty ? nil : queue.removeFirst() }
}
