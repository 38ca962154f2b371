import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// One end of a connection, played by a script: what it sends, when it reads, how it ends.
class ScriptedPeer {
  /// How the peer behaves. Times are nanoseconds.
  struct Plan {
    /// Bytes to send in all; a server that echoes sends as many as it got instead.
    var total = 0
    var echoes = false
    /// Bytes in one call, and the pause after it.
    var chunk = 4096
    var pause: UInt64 = 0
    /// Sends nothing, or reads nothing, before this time has passed.
    var speaksAfter: UInt64 = 0
    var readsAfter: UInt64 = 0
    /// Half-closes after its last byte; else it closes once it has read as many bytes as it wants, or the end.
    var halfCloses = true
    /// Half-closes only after it has read the end.
    var waitsForEnd = false
    var wants = Int.max
    /// Resets once it has sent and received this many bytes together.
    var resetsAt = Int.max
  }

  unowned let world: GatewayWorld
  let name: UInt64
  let socket: SimSocket
  let plan: Plan
  let start: UInt64
  weak var partner: ScriptedPeer?
  /// The process that plays this end, which may be stopped.
  weak var host: ScriptedEndpoint?
  private(set) var sent = 0
  private(set) var received = 0
  private var head: [UInt8] = []
  /// Nil while the stream goes on; 0 after its end, else the errno.
  private(set) var endRead: Int?
  private(set) var wasReset = false
  private(set) var isShut = false
  private var nextSpeech: UInt64 = 0
  private var isPoked = false
  /// Bytes that come before the partner's stream: a PROXY header.
  var prologue: [UInt8]?
  private var preamble: [UInt8] = []
  private var awaitsPreamble: Bool
  private(set) var announced: Address?
  var isDone: Bool { socket.isClosed }

  init(
    _ world: GatewayWorld, name: UInt64, socket: SimSocket, plan: Plan, prologue: [UInt8]? = nil,
    expectsPreamble: Bool = false
  ) {
    self.world = world
    self.name = name
    self.socket = socket
    self.plan = plan
    self.prologue = prologue
    awaitsPreamble = expectsPreamble
    start = world.network.clock
    nextSpeech = start + plan.speaksAfter
    socket.changed = { [unowned self] in poke() }
  }

  /// Looks at the socket soon.
  func poke(after delay: UInt64 = 1_000) {
    guard !isPoked else { return }
    isPoked = true
    world.network.after(delay) { [self] in
      isPoked = false
      act()
    }
  }

  private func act() {
    guard !socket.isClosed, host?.isStopped != true else { return }
    if world.network.clock >= start + plan.readsAfter {
      read()
    } else {
      world.network.at(start + plan.readsAfter) { [self] in act() }
    }
    guard !socket.isClosed else { return }
    speak()
    guard !socket.isClosed else { return }
    conclude()
  }

  // MARK: Reading

  private func read() {
    while endRead == nil {
      let (result, bytes) = socket.receive(1 + world.network.random.below(20_000))
      if result == -Int(EAGAIN) { return }
      guard result > 0 else {
        endRead = result
        return
      }
      take(awaitsPreamble ? withoutPreamble(bytes) : bytes)
      if sent + received >= plan.resetsAt { return }
    }
  }

  private func withoutPreamble(_ bytes: [UInt8]) -> [UInt8] {
    preamble += bytes
    switch ProxyProtocol.parse(preamble.span.bytes) {
    case .header(let source, _, let length):
      announced = source
      awaitsPreamble = false
      return Array(preamble[length...])
    case .needMore: return []
    case .invalid(let reason):
      world.fail("an endpoint got a bad PROXY header: \(reason.rawValue)")
      return []
    }
  }

  private func take(_ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    if partner == nil {
      head += bytes
      received = head.count
      guard let name = SimStream.name(in: head) else { return }
      guard let found = world.peers[name] else {
        world.fail("peer \(self.name) got bytes of nobody")
        return
      }
      partner = found
      if found.partner == nil { found.partner = self }
      if found.partner !== self { world.fail("peer \(name) is connected to two") }
      if !SimStream.matches(head, name, at: 0) {
        world.fail("peer \(self.name) got wrong bytes at the start")
      }
    } else if let partner {
      if !SimStream.matches(bytes, partner.name, at: received) {
        world.fail("peer \(name) got wrong bytes at \(received)")
      }
      received += bytes.count
    }
  }

  // MARK: Sending

  private var allowance: Int { plan.echoes ? (partner == nil ? 0 : received) : plan.total }

  private func speak() {
    let now = world.network.clock
    if let text = prologue {
      guard now >= nextSpeech else { return poke(after: nextSpeech - now) }
      // The header goes out in pieces of the chunk's size.
      let count = socket.send(Array(text.prefix(plan.chunk)))
      if count > 0 {
        prologue = count == text.count ? nil : Array(text[count...])
        nextSpeech = now + plan.pause
        poke(after: max(1_000, plan.pause))
      }
      return
    }
    while !isShut, sent < allowance {
      guard now >= nextSpeech else { return poke(after: nextSpeech - now) }
      let count = min(min(plan.chunk, 60_000), allowance - sent)
      let result = socket.send(SimStream.bytes(of: name, at: sent, count: count))
      guard result > 0 else { return }
      sent += result
      if sent + received >= plan.resetsAt { return }
      if plan.pause > 0 {
        nextSpeech = now + plan.pause
        return poke(after: plan.pause)
      }
    }
  }

  // MARK: The end

  private func conclude() {
    if sent + received >= plan.resetsAt { return reset() }
    if let endRead, endRead < 0 {
      socket.close()
      return
    }
    // A dead connection on which the error went to somebody else reads like an end.
    if socket.isDead, endRead == 0, !socket.finArrived {
      socket.close()
      return
    }
    let saidAll = plan.echoes ? endRead == 0 && sent >= received : sent >= plan.total
    if plan.halfCloses, saidAll, !isShut, prologue == nil, endRead == 0 || !plan.waitsForEnd {
      isShut = true
      socket.halfClose()
    }
    if received >= plan.wants || (endRead == 0 && (isShut || (saidAll && prologue == nil))) {
      if endRead == 0 { isShut = true }
      socket.close()
    }
  }

  func reset() {
    wasReset = true
    socket.reset()
  }

  /// Took its stream to the end as far as it is up to itself.
  var sawCleanEnd: Bool { endRead == 0 && socket.finArrived }
  var state: String {
    "\(name): sent \(sent) of \(plan.echoes ? -1 : plan.total), received \(received), end \(endRead ?? 1)"
      + (awaitsPreamble ? " awaits the PROXY header (\(preamble.count) bytes)" : "") + (isShut ? " shut" : "")
      + (isDone ? " done" : "") + (socket.isDead ? " dead" : "")
  }
}

/// A listening endpoint: serves, or is away, or hangs.
final class ScriptedEndpoint {
  unowned let world: GatewayWorld
  let address: Address
  var listener: SimListener?
  /// A stopped process: connections come, nobody looks.
  var isStopped = false
  let plan: () -> ScriptedPeer.Plan

  init(_ world: GatewayWorld, _ address: Address, plan: @escaping () -> ScriptedPeer.Plan) {
    self.world = world
    self.address = address
    self.plan = plan
  }

  func up() {
    guard listener == nil else { return }
    let made = world.network.listen(address, backlog: 64)
    made.changed = [{ [unowned self] in accept() }]
    listener = made
    isStopped = false
  }

  func down(as host: SimNetwork.Host) {
    world.network.hosts[address] = host
    if let listener { world.network.stopListening(listener) }
    listener = nil
  }

  /// A stopped process goes on.
  func resume() {
    isStopped = false
    for peer in world.peers.values where peer.host === self { peer.poke() }
    accept()
  }

  func accept() {
    world.network.after(1_000) { [self] in
      while !isStopped, let socket = listener?.accept() { world.serve(socket, at: self) }
    }
  }
}
