import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// The kernel of a pump under test: buffers, pipes, and the one send a channel has under way.
final class PumpKernel: Kernel {
  var free: [UInt16]
  var complaints: [String] = []
  var pipes: [Int32: ByteFIFO] = [:]
  var pipeCapacity: Int32
  var pipesLeft: Int
  private var nextPipe: Int32 = 10
  private(set) var asked: (pieces: [UnsafeRawBufferPointer], prompt: Bool)?

  init(buffers: BufferPool, pipeCapacity: Int32, pipesLeft: Int) {
    free = Array(0..<UInt16(buffers.count))
    self.pipeCapacity = pipeCapacity
    self.pipesLeft = pipesLeft
    super.init(buffers: buffers)
  }

  func take() -> UInt16 {
    buffers.held += 1
    return free.removeFirst()
  }

  override func release(_ buffer: UInt16) {
    if free.contains(buffer) { complaints.append("buffer \(buffer) released twice") }
    buffers.held -= 1
    for index in buffers.memory(buffer).indices.prefix(32) { buffers.memory(buffer)[index] = 0xDD }
    free.append(buffer)
  }

  override func send(_ descriptor: Int32, _ queue: borrowing BufferQueue, prompt: Bool, _ token: Token) {
    var pieces: [UnsafeRawBufferPointer] = []
    var buffer = queue.head
    while buffer != BufferPool.none, pieces.count < 64 {
      pieces.append(buffers.bytes(buffer))
      buffer = buffers.entries[Int(buffer)].next
    }
    let total = pieces.reduce(0) { $0 + $1.count }
    let isShort = total < queue.byteCount
    asked = (pieces, prompt || isShort)
  }

  override func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, prompt: Bool, _ token: Token) {
    asked = ([bytes], prompt)
  }

  override func makePipe(capacity: Int32) -> Pipe? {
    guard pipesLeft > 0 else { return nil }
    pipesLeft -= 1
    nextPipe += 2
    pipes[nextPipe] = ByteFIFO()
    return Pipe(readEnd: nextPipe, writeEnd: nextPipe + 1, capacity: min(capacity, pipeCapacity))
  }

  override func closePipe(_ pipe: Pipe) {
    if pipes.removeValue(forKey: pipe.readEnd) == nil { complaints.append("a pipe was closed twice") }
    pipesLeft += 1
  }
}

/// One pump between a source and a destination that do whatever a peer and a kernel may do.
final class PumpChannel {
  enum Event {
    case bytes, receiveEnds, receiveEndsWithBytes, receiveCancelled, sent, deferredSent
    case sourceReadable, sourceCancelled, destinationWritable, destinationCancelled
    case produce, endSource, makeRoom, feed, stop
  }

  static let none = Token(owner: 1, operation: 0, handle: Handle(slot: 0, generation: 1))
  let kernel: PumpKernel
  let name: UInt64
  var pump = Pump()
  var failure: String?

  // The source.
  let total: Int
  private var produced = 0
  private var taken = 0
  private var sourceEnded = false
  private let sourceFails: Int32
  private let waitsForAnswers: Bool
  // The destination.
  private var room: Int
  private(set) var delivered = 0
  private var isHalfClosed = false
  private let destinationFailsAt: Int
  private let destinationRoom: Int
  // The kernel's operations.
  private var receiving = false
  private var cancelling = false
  private var pollsSource = false
  private var pollsDestination = false
  private var cancelledSource = false
  private var cancelledDestination = false
  private var sending: (pieces: [UnsafeRawBufferPointer], prompt: Bool)?
  private var deferred: Int32?
  private var isOver = false
  private var stops: Bool
  /// Failures in a thousand.
  private let nuisance: Int

  init(_ kernel: PumpKernel, name: UInt64, _ random: inout SimRandom) {
    self.kernel = kernel
    self.name = name
    total = random.chance(100) ? 0 : random.size(upTo: random.chance(200) ? 400_000 : 20_000)
    sourceFails = random.chance(150) ? ECONNRESET : 0
    waitsForAnswers = random.chance(300)
    destinationRoom = total / 500 + random.size(upTo: 200_000)
    room = random.below(destinationRoom + 1)
    destinationFailsAt = random.chance(150) ? random.below(total + 1) : .max
    stops = random.chance(100)
    nuisance = random.pick([0, 0, 10, 100, 400])
    if random.chance(200) {
      let length = min(total, random.size(upTo: 300))
      pump.preload(SimStream.bytes(of: name, at: 0, count: length))
      produced = length
      taken = length
    }
  }

  /// The channel has done all it will.
  var isFinished: Bool { isOver && !pump.isInFlight && pump.pipe == nil }

  // MARK: Actions

  func act(_ pipes: inout PipePool, _ random: inout SimRandom) {
    var steps = 0
    while failure == nil {
      steps += 1
      guard steps < 20_000 else { return fail("livelock") }
      let action = pump.next()
      switch action {
      case .none: return settle()
      case .receive:
        if receiving || pollsSource { fail("receive while the source is in use") }
        if pump.isSplicing { fail("receive while splicing") }
        (receiving, cancelling) = (true, false)
      case .cancelReceive:
        if !receiving || cancelling { fail("needless cancel") }
        cancelling = true
      case .cancelPollSource: cancelledSource = true
      case .cancelPollDestination: cancelledDestination = true
      case .backUp: pump.backUp(kernel)
      case .sendBacklog: ask { kernel.send(0, pump.backlog.bytes, prompt: true, Self.none) }
      case .sendQueue: ask { kernel.send(0, pump.queue, prompt: pump.needsPromptSend, Self.none) }
      case .fill: fill(&pipes, &random)
      case .drain: drain(&random)
      case .returnPipe:
        if let (pipe, empty) = pump.takePipe() { pipes.giveBack(pipe, empty: empty, kernel) }
      case .pollSource:
        if pollsSource || receiving { fail("poll while the source is in use") }
        pollsSource = true
      case .pollDestination:
        if pollsDestination { fail("two polls") }
        pollsDestination = true
      case .halfClose:
        if delivered != total || isHalfClosed { fail("half-close after \(delivered) of \(total) bytes") }
        isHalfClosed = true
      }
    }
  }

  private func ask(_ body: () -> Void) {
    if sending != nil || deferred != nil { fail("two sends at once") }
    body()
    sending = kernel.asked
  }

  private func settle() {
    if pump.outcome != .open { isOver = true }
    if case .ended = pump.outcome, !isHalfClosed { fail("ended without a half-close") }
    if case .sourceBroke = pump.outcome, delivered != taken { fail("bytes lost before the source's failure") }
  }

  private func fill(_ pipes: inout PipePool, _ random: inout SimRandom) {
    if receiving || pollsSource { fail("fill while the source is in use") }
    if sending != nil || pump.hasBytes { fail("fill past bytes that wait") }
    if pump.pipe == nil {
      pump.lend(pipes.borrow(kernel))
      if let pipe = pump.pipe, kernel.pipes[pipe.readEnd]?.isEmpty != true { fail("a dirty pipe was lent") }
    }
    guard let pipe = pump.pipe else { return }
    if random.chance(nuisance) { return pump.filled(-Int(random.pick([EAGAIN, EINTR]))) }
    let left = produced - taken
    guard left > 0 else {
      guard sourceEnded else { return pump.filled(-Int(EAGAIN)) }
      return pump.filled(-Int(sourceFails))
    }
    let count = min(min(left, Int(pipe.capacity)), random.chance(nuisance) ? random.size(upTo: left) : left)
    kernel.pipes[pipe.readEnd]?.append(source(count))
    pump.filled(count)
  }

  private func drain(_ random: inout SimRandom) {
    guard let pipe = pump.pipe, let inside = kernel.pipes[pipe.readEnd] else {
      return fail("drain of no pipe")
    }
    if inside.count != pump.piped { fail("the pump is wrong about its pipe") }
    if delivered >= destinationFailsAt { return pump.drained(-Int(EPIPE), kernel) }
    if random.chance(nuisance) { return pump.drained(-Int(random.pick([EAGAIN, EINTR])), kernel) }
    let most = min(pump.piped, room)
    guard most > 0 else { return pump.drained(-Int(EAGAIN), kernel) }
    let count = random.chance(nuisance) ? random.size(upTo: most) : most
    deliver(kernel.pipes[pipe.readEnd]?.take(count) ?? [])
    pump.drained(count, kernel)
  }

  private func source(_ count: Int) -> [UInt8] {
    defer { taken += count }
    var bytes: [UInt8] = []
    while bytes.count < count {
      bytes += SimStream.bytes(of: name, at: taken + bytes.count, count: min(50_000, count - bytes.count))
    }
    return bytes
  }

  private func deliver(_ bytes: [UInt8]) {
    if isHalfClosed { fail("bytes after the end") }
    if !SimStream.matches(bytes, name, at: delivered) { fail("wrong bytes at \(delivered)") }
    delivered += bytes.count
    room -= bytes.count
  }

  /// For the report of a run that got stuck.
  var state: String {
    "\(delivered) of \(total) delivered, \(taken) taken of \(produced), room \(room), \(pump.outcome)"
      + (receiving ? " receiving" : "") + (cancelling ? " cancelling" : "")
      + (sending != nil ? " sending" : "")
      + (deferred != nil ? " deferred" : "") + (pollsSource ? " pollsSource" : "")
      + (pollsDestination ? " pollsDestination" : "") + (pump.isStarved ? " starved" : "")
      + (pump.isInFlight ? " in-flight" : "") + (pump.pipe != nil ? " pipe" : "")
  }

  func fail(_ text: String) { if failure == nil { failure = text } }

  // MARK: Events

  /// What may happen now, in some order of likelihood.
  func possible(_ events: inout [Event]) {
    let left = produced - taken
    if receiving {
      if left > 0, !kernel.free.isEmpty { events += [.bytes, .bytes, .receiveEndsWithBytes] }
      if left > 0 || sourceEnded { events.append(.receiveEnds) }
      if cancelling { events.append(.receiveCancelled) }
    }
    if sending != nil { events.append(.sent) }
    if pollsSource {
      if left > 0 || sourceEnded { events.append(.sourceReadable) }
      if cancelledSource { events.append(.sourceCancelled) }
    }
    if pollsDestination {
      if room > 0 || delivered >= destinationFailsAt { events.append(.destinationWritable) }
      if cancelledDestination { events.append(.destinationCancelled) }
    }
    if pump.isStarved, !kernel.free.isEmpty { events.append(.feed) }
    if room <= 0 { events.append(.makeRoom) }
    if !sourceEnded, !isOver {
      if produced == total { events.append(.endSource) }
      if produced < total, !waitsForAnswers || delivered == produced { events.append(.produce) }
    }
    if stops, !isOver { events.append(.stop) }
  }

  /// A full send that was not asked for promptly: reported with the next wake-up of the core.
  var awaitsWake: Bool { deferred != nil }

  /// The core wakes up: all sends that it had asked for were tried, and are reported.
  func wake(_ random: inout SimRandom) {
    completeSend(&random, isAwake: true)
    guard let result = deferred else { return }
    deferred = nil
    pump.sent(result, kernel)
  }

  func happen(_ event: Event, _ random: inout SimRandom) {
    switch event {
    case .bytes: receive(&random)
    case .receiveEndsWithBytes:
      guard random.chance(nuisance) else { return receive(&random) }
      receive(&random)
      endReceive(-EAGAIN)
    case .receiveEnds: receiveEnds(&random)
    case .receiveCancelled: endReceive(-ECANCELED)
    case .sent: completeSend(&random, isAwake: false)
    case .deferredSent: wake(&random)
    case .sourceReadable, .sourceCancelled:
      pollsSource = false
      pump.sourceReadable()
    case .destinationWritable, .destinationCancelled:
      pollsDestination = false
      pump.destinationWritable()
    case .produce: produced += random.size(upTo: total - produced)
    case .endSource: sourceEnded = true
    case .makeRoom: room = random.size(upTo: destinationRoom)
    case .feed: pump.buffersFreed()
    case .stop:
      stops = false
      if random.chance(50) { pump.stop(kernel) }
    }
  }

  private func endReceive(_ result: Int32) {
    receiving = false
    cancelling = false
    pump.receiveEnded(result)
  }

  private func receive(_ random: inout SimRandom) {
    let left = produced - taken
    guard left > 0, !kernel.free.isEmpty else { return }
    let buffer = kernel.take()
    let most = min(left, kernel.buffers.size)
    let bytes = source(random.chance(nuisance) ? random.size(upTo: most) : most)
    kernel.buffers.memory(buffer).copyBytes(from: bytes)
    pump.received(buffer, length: bytes.count, kernel)
  }

  private func receiveEnds(_ random: inout SimRandom) {
    if produced > taken {
      if kernel.free.isEmpty || random.chance(nuisance) {
        endReceive(kernel.free.isEmpty ? -ENOBUFS : -random.pick([ENOBUFS, EINTR, EAGAIN]))
      }
    } else {
      endReceive(-sourceFails)
    }
  }

  private func completeSend(_ random: inout SimRandom, isAwake: Bool) {
    guard let (pieces, prompt) = sending else { return }
    sending = nil
    if delivered >= destinationFailsAt { return pump.sent(-EPIPE, kernel) }
    if random.chance(nuisance) { return pump.sent(-random.pick([EAGAIN, EINTR]), kernel) }
    let offered = pieces.reduce(0) { $0 + $1.count }
    var most = min(room, offered)
    guard most > 0 else { return pump.sent(-EAGAIN, kernel) }
    if random.chance(nuisance) { most = random.below(most + 1) }
    var left = most
    for piece in pieces where left > 0 {
      deliver(Array(piece[..<min(left, piece.count)]))
      left -= piece.count
    }
    if most == offered, !prompt, !isAwake { deferred = Int32(most) } else { pump.sent(Int32(most), kernel) }
  }
}
