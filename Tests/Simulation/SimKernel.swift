import Glibc
import Reactor

/// A kernel interface over a `SimNetwork`, with all the freedom that `Kernel` leaves to a real one.
///
/// What is asked takes effect in `submit`, the first half of a turn. A driver of several cores calls `submit` by
/// itself after each turn of a core, steps the network while no core `isReady`, and lets one that is take its turn.
package final class SimKernel: SimSystem {
  enum Request {
    case arm(Int32, Kind, Token)
    case connect(Int32, Address, Token)
    case send(Int32, [UnsafeRawBufferPointer], prompt: Bool, Token)
    case cancel(Token)
  }

  /// Tells of sends when they are tried, as epoll does, instead of only when something else wakes the core.
  package let isEager: Bool
  package static let piecesASend = 64

  var requests: [Request] = []
  private var deferred: [Completion] = []
  private var isPrompt = false
  private var isRung = false
  /// Free buffers that the operating system knows of, and those returned since the last `submit`.
  var free: [UInt16]
  var returned: [UInt16] = []

  package init(_ network: SimNetwork, buffers: BufferPool, isEager: Bool = false) {
    self.isEager = isEager
    free = Array(0..<UInt16(buffers.count))
    super.init(network, buffers)
  }

  // MARK: Asking

  package override func accept(_ listener: Int32, _ token: Token) {
    calls.accepts += 1
    requests.append(.arm(listener, .accept, token))
  }

  package override func connect(_ descriptor: Int32, to address: Address, _ token: Token) {
    calls.connects += 1
    requests.append(.connect(descriptor, address, token))
  }

  package override func receive(_ descriptor: Int32, _ token: Token) {
    calls.receives += 1
    requests.append(.arm(descriptor, .receive, token))
  }

  package override func send(
    _ descriptor: Int32, _ queue: borrowing BufferQueue, prompt: Bool, _ token: Token
  ) {
    var pieces: [UnsafeRawBufferPointer] = []
    var buffer = queue.head
    while buffer != BufferPool.none, pieces.count < Self.piecesASend {
      pieces.append(buffers.bytes(buffer))
      buffer = buffers.entries[Int(buffer)].next
    }
    let isAll = pieces.reduce(0) { $0 + $1.count } == queue.byteCount
    ask(descriptor, pieces, prompt || !isAll, token)
  }

  package override func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, prompt: Bool, _ token: Token
  ) { ask(descriptor, [bytes], prompt, token) }

  private func ask(_ descriptor: Int32, _ pieces: [UnsafeRawBufferPointer], _ prompt: Bool, _ token: Token) {
    calls.sends += 1
    if !sending.insert(descriptor).inserted { network.complain("two sends at once on \(descriptor)") }
    requests.append(.send(descriptor, pieces, prompt: prompt, token))
  }

  package override func poll(_ descriptor: Int32, for readiness: Readiness, _ token: Token) {
    calls.polls += 1
    requests.append(.arm(descriptor, readiness.contains(.readable) ? .pollRead : .pollWrite, token))
  }

  package override func cancel(_ token: Token, on descriptor: Int32) {
    calls.cancels += 1
    requests.append(.cancel(token))
  }

  package override func release(_ buffer: UInt16) {
    if free.contains(buffer) || returned.contains(buffer) {
      return network.complain("buffer \(buffer) was released twice")
    }
    buffers.held -= 1
    // Whoever still looks at it shall notice.
    for index in buffers.memory(buffer).indices.prefix(64) { buffers.memory(buffer)[index] = 0xDD }
    returned.append(buffer)
  }

  package override func wake(from: Kernel?) { isRung = true }

  // MARK: A turn

  package override func turn(until deadline: Instant) {
    calls.turns += 1
    submit()
    while !isReady(deadline), network.nextEvent != nil || deadline != .distantFuture {
      _ = network.step(until: deadline.nanoseconds)
      progress()
    }
    collect()
  }

  /// Whether a core that sleeps until `deadline` would wake up.
  package func isReady(_ deadline: Instant) -> Bool {
    progress()
    if !arrived.isEmpty || isRung || isPrompt || deadline <= now { return true }
    return !deferred.isEmpty && buffers.held > buffers.count / 2
  }

  private func collect() {
    if isRung { add(Completion(token: .wake, result: 0)) }
    isRung = false
    isPrompt = false
    for completion in deferred { add(completion) }
    deferred.removeAll(keepingCapacity: true)
    sending.removeAll(keepingCapacity: true)
    shuffle()
    deliver()
  }

  func add(_ completion: Completion) { arrived.append(completion) }

  /// Any order will do in which the completions of one operation keep theirs.
  private func shuffle() {
    guard arrived.count > 1 else { return }
    var all = (0..<arrived.count).map { arrived[$0] }
    var order = all.map(\.token)
    order.shuffle(using: &network.random)
    var places: [Token: [Int]] = [:]
    for (place, token) in order.enumerated() { places[token, default: []].append(place) }
    var seen: [Token: Int] = [:]
    let original = all
    for completion in original {
      let index = seen[completion.token, default: 0]
      seen[completion.token] = index + 1
      guard let place = places[completion.token]?[index] else { continue }
      all[place] = completion
    }
    arrived.removeAll()
    for completion in all { arrived.append(completion) }
  }

  // MARK: Taking effect

  /// Everything asked for since the last turn reaches the operating system.
  package func submit() {
    free += returned
    returned.removeAll(keepingCapacity: true)
    let asked = requests
    requests.removeAll(keepingCapacity: true)
    for request in asked {
      switch request {
      case .arm(let descriptor, let kind, let token): arm(descriptor, kind, token)
      case .connect(let descriptor, let address, let token): connectNow(descriptor, address, token)
      case .send(let descriptor, let pieces, let prompt, let token):
        sendNow(descriptor, pieces, prompt, token)
      case .cancel(let token): cancelNow(token)
      }
    }
  }

  private func arm(_ descriptor: Int32, _ kind: Kind, _ token: Token) {
    guard network.entry(descriptor) != nil else {
      network.complain("\(kind) on \(descriptor), which is not open")
      return add(Completion(token: token, result: -EBADF))
    }
    let before = kind == .pollWrite ? writes[descriptor] : reads[descriptor]
    if let before { network.complain("\(kind) on \(descriptor) while \(before.kind) is armed") }
    let armed = Armed(kind: kind, token: token)
    if kind == .pollWrite { writes[descriptor] = armed } else { reads[descriptor] = armed }
    watch(descriptor)
    note(descriptor)
  }

  private func watch(_ descriptor: Int32) {
    if let socket = network.socket(descriptor), socket.changed == nil {
      socket.changed = { [unowned self] in note(descriptor) }
    } else if let listener = network.listener(descriptor), listener.changed.count < listener.holders {
      listener.changed.append { [unowned self] in note(descriptor) }
    }
  }

  private func cancelNow(_ token: Token) {
    // What could complete may do so before the cancel finds it.
    if network.random.chance(500) { progress() }
    for (descriptor, armed) in reads where armed.token == token {
      reads[descriptor] = nil
      return add(Completion(token: token, result: -ECANCELED))
    }
    for (descriptor, armed) in writes where armed.token == token {
      writes[descriptor] = nil
      return add(Completion(token: token, result: -ECANCELED))
    }
  }

  private func connectNow(_ descriptor: Int32, _ address: Address, _ token: Token) {
    guard let socket = network.socket(descriptor) else {
      network.complain("connect on \(descriptor), which is not open")
      return add(Completion(token: token, result: -EBADF))
    }
    if network.random.chance(faults.fatal) {
      return add(Completion(token: token, result: -network.random.pick(SimFaults.fatalOfConnect)))
    }
    writes[descriptor] = Armed(kind: .connect, token: token)
    let local = Address.v4(0x0A00_0001, port: UInt16(1024 + network.random.below(60_000)))
    network.connect(socket, from: local, to: address) { [unowned self] code in
      // The descriptor may mean another socket by now.
      guard let current = network.socket(descriptor), current === socket, writes[descriptor]?.token == token
      else {
        return
      }
      writes[descriptor] = nil
      add(Completion(token: token, result: -code))
    }
  }

  private func sendNow(
    _ descriptor: Int32, _ pieces: [UnsafeRawBufferPointer], _ prompt: Bool, _ token: Token
  ) {
    let total = pieces.reduce(0) { $0 + $1.count }
    let result = sendResult(descriptor, pieces, total)
    isPrompt = isPrompt || prompt
    if result == total && !isEager {
      deferred.append(Completion(token: token, result: Int32(result)))
    } else {
      add(Completion(token: token, result: Int32(result)))
    }
  }

  private func sendResult(_ descriptor: Int32, _ pieces: [UnsafeRawBufferPointer], _ total: Int) -> Int {
    guard let socket = network.socket(descriptor) else {
      network.complain("send on \(descriptor), which is not open")
      return -Int(EBADF)
    }
    if faults.nextSend != 0 {
      defer { faults.nextSend = 0 }
      return -Int(faults.nextSend)
    }
    var limit = Int.max
    if network.random.chance(faults.mild) {
      if network.random.chance(500) { return -Int(network.random.pick(SimFaults.mildOfSend)) }
      limit = network.random.below(total)
    }
    if network.random.chance(faults.fatal) { return breakStream(socket, sending: true) }
    var sent = 0
    for piece in pieces where sent < limit {
      let part = UnsafeRawBufferPointer(rebasing: piece[..<min(piece.count, limit - sent)])
      let count = socket.send(part)
      guard count > 0 else { return sent > 0 ? sent : count }
      sent += count
      if count < piece.count { break }
    }
    return sent
  }

  /// Lets operations complete whose descriptors have changed.
  func progress() {
    guard !changes.isEmpty else { return }
    var now = changes
    changes.removeAll(keepingCapacity: true)
    changed.removeAll(keepingCapacity: true)
    if now.count > 1 { now.shuffle(using: &network.random) }
    for descriptor in now {
      if let armed = writes[descriptor], armed.kind == .pollWrite { pollNow(descriptor, armed) }
      guard let armed = reads[descriptor] else { continue }
      switch armed.kind {
      case .accept: acceptReady(descriptor, armed.token)
      case .receive: receiveReady(descriptor, armed.token)
      default: pollNow(descriptor, armed)
      }
    }
  }

  private func pollNow(_ descriptor: Int32, _ armed: Armed) {
    guard let socket = network.socket(descriptor) else { return }
    let isReading = armed.kind == .pollRead
    let isReady = isReading ? socket.isReadable : socket.isWritable
    guard isReady || network.random.chance(faults.mild) else { return }
    if isReading { reads[descriptor] = nil } else { writes[descriptor] = nil }
    let bits = isReading ? Readiness.readable : Readiness.writable
    add(Completion(token: armed.token, result: bits.rawValue))
  }
}
