import Glibc
import Reactor

/// The world outside of the process under test: hosts, wires, a clock, and the process's descriptor table.
///
/// Nothing happens but through `step`, which jumps to the next event. All chance comes from one generator.
package final class SimNetwork {
  /// What answers at an address where nobody listens.
  package enum Host: Sendable { case refusing, blackHole, unreachable }

  enum Entry {
    case socket(SimSocket)
    case listener(SimListener)
    case pipe(SimPipe, isReadEnd: Bool)
  }

  package var random: SimRandom
  package private(set) var clock: UInt64 = 1_000_000_000
  /// Nanoseconds on the wire, shortest and longest.
  package var wire: (least: UInt64, most: UInt64) = (20_000, 500_000)
  /// Descriptors the process may have.
  package var descriptorLimit = 1 << 16
  /// What the process did that no process may do.
  package private(set) var complaints: [String] = []
  /// The process's descriptors.
  var table: [Entry?] = [nil, nil, nil]
  private var listeners: [Address: [SimListener]] = [:]
  package var hosts: [Address: Host] = [:]
  private var events = EventHeap()
  private var sockets: [SimSocket] = []

  package init(seed: UInt64) { random = SimRandom(seed: seed) }

  package var now: Instant { Instant(nanoseconds: clock) }

  package func complain(_ text: String) { if complaints.count < 20 { complaints.append(text) } }

  // MARK: Time

  package func at(_ time: UInt64, _ body: @escaping () -> Void) {
    events.push(.init(time: max(time, clock), body: body))
  }

  package func after(_ nanoseconds: UInt64, _ body: @escaping () -> Void) { at(clock + nanoseconds, body) }

  package var nextEvent: UInt64? { events.first?.time }

  /// Runs the next event if it is due by `limit`; else moves the clock there. False when nothing was run.
  @discardableResult package func step(until limit: UInt64) -> Bool {
    guard let first = events.first, first.time <= limit else {
      if limit != .max { clock = max(clock, limit) }
      return false
    }
    clock = max(clock, first.time)
    events.pop().body()
    return true
  }

  /// Time that the process itself takes.
  package func pass(_ nanoseconds: UInt64) { clock += nanoseconds }

  func latency() -> UInt64 { wire.least + UInt64(random.below(Int(wire.most - wire.least) + 1)) }

  // MARK: Descriptors of the process

  func open(_ entry: Entry) -> Int32? {
    // The lowest free number, as the kernel gives it: old numbers come back at once.
    if let free = (3..<max(3, table.count)).first(where: { table[$0] == nil }) {
      guard free < descriptorLimit else { return nil }
      table[free] = entry
      return Int32(free)
    }
    guard table.count < descriptorLimit else { return nil }
    table.append(entry)
    return Int32(table.count - 1)
  }

  package var openDescriptors: Int { table.count { $0 != nil } }
  package var openPipes: Int {
    table.count { if case .pipe(_, let isReadEnd) = $0 { isReadEnd } else { false } }
  }

  func entry(_ descriptor: Int32) -> Entry? {
    descriptor >= 0 && Int(descriptor) < table.count ? table[Int(descriptor)] : nil
  }

  package func socket(_ descriptor: Int32) -> SimSocket? {
    if case .socket(let socket) = entry(descriptor) { socket } else { nil }
  }

  func listener(_ descriptor: Int32) -> SimListener? {
    if case .listener(let listener) = entry(descriptor) { listener } else { nil }
  }

  // MARK: Connections

  package func listen(_ address: Address, backlog: Int = 128) -> SimListener {
    let listener = SimListener(address: address, backlog: backlog)
    listeners[address, default: []].append(listener)
    return listener
  }

  /// A descriptor of the process for a listener; several cores may hold one each.
  package func hold(_ listener: SimListener) -> Int32 {
    listener.holders += 1
    return open(.listener(listener)) ?? -1
  }

  package func stopListening(_ listener: SimListener) {
    listeners[listener.address]?.removeAll { $0 === listener }
    for waiting in listener.queue { waiting.reset() }
    listener.queue.removeAll()
  }

  /// A scripted program's socket.
  package func makeSocket(capacity: Int) -> SimSocket {
    let socket = SimSocket(self, capacity: capacity)
    sockets.append(socket)
    return socket
  }

  /// Lets go of everything that refers to each other.
  package func dismantle() {
    events = EventHeap()
    for socket in sockets {
      socket.peer = nil
      socket.changed = nil
    }
    for listener in listeners.values.joined() {
      listener.changed = []
      listener.queue = []
    }
  }

  /// Connects; `done` gets 0 or an errno, or is never called when packets vanish.
  package func connect(
    _ socket: SimSocket, from local: Address, to address: Address, _ done: @escaping (Int32) -> Void
  ) {
    after(latency()) { [self] in
      guard !socket.isClosed else { return }
      let open = (listeners[address] ?? []).filter { $0.queue.count < $0.backlog }
      guard !open.isEmpty else {
        if listeners[address]?.isEmpty == false {
          // A full queue drops the packet; it is sent again after a second.
          return after(1_000_000_000) { [self] in
            if !socket.isClosed { connect(socket, from: local, to: address, done) }
          }
        }
        switch hosts[address] ?? .refusing {
        case .refusing: return after(latency()) { done(ECONNREFUSED) }
        case .unreachable: return after(3_000_000_000) { done(EHOSTUNREACH) }
        case .blackHole: return
        }
      }
      let listener = random.pick(open)
      let other = makeSocket(capacity: socket.capacity)
      (socket.peer, other.peer) = (other, socket)
      (socket.local, socket.remote, other.local, other.remote) = (local, address, address, local)
      listener.queue.append(other)
      for changed in listener.changed { changed() }
      after(latency()) { done(0) }
    }
  }
}

/// A pipe with its slots: a page each, however few bytes are in it.
final class SimPipe {
  var bytes = ByteFIFO()
  var freeSlots: Int
  let slots: Int
  var openEnds = 2

  init(slots: Int) {
    self.slots = slots
    freeSlots = slots
  }
}

/// Events in the order of time, and of asking within one instant.
struct EventHeap {
  struct Event {
    let time: UInt64
    var order: UInt64 = 0
    let body: () -> Void
    init(time: UInt64, body: @escaping () -> Void) {
      self.time = time
      self.body = body
    }
    func precedes(_ other: Event) -> Bool { (time, order) < (other.time, other.order) }
  }

  private var heap: [Event] = []
  private var asked: UInt64 = 0

  var first: Event? { heap.first }

  mutating func push(_ event: Event) {
    var event = event
    asked += 1
    event.order = asked
    heap.append(event)
    var child = heap.count - 1
    while child > 0, heap[child].precedes(heap[(child - 1) / 2]) {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func pop() -> Event {
    let result = heap[0]
    heap[0] = heap[heap.count - 1]
    heap.removeLast()
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count {
        if heap[child].precedes(heap[least]) { least = child }
      }
      if least == parent { return result }
      heap.swapAt(least, parent)
      parent = least
    }
  }
}
