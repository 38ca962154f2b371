internal import Reactor

/// The streams of heartbeats of one core, and their way to the batcher and back. Core 0 has the batcher.
final class HeartbeatDesk {
  unowned let core: ProxyCore
  private let batcher: HeartbeatBatcher?
  /// Streams by number, and how often a number has been used.
  private var streams = IndexPool<HeartbeatStream?>()
  private var generations: [UInt32] = []
  private var bag = HeartbeatMailbag()
  /// Streams that have something to send.
  private var due: [HeartbeatStream] = []
  private var timer = TimerWheel.Timer.none
  private var timerDue = Instant.distantFuture

  init(_ core: ProxyCore) {
    self.core = core
    guard core.index == 0 else {
      batcher = nil
      return
    }
    let cores = core.shared.group.links.count
    let feeds = HeartbeatFeeds(core)
    let batcher = HeartbeatBatcher(cores: cores, seed: core.random.next()) { feeds.make($0, $1) }
    feeds.batcher = batcher
    self.batcher = batcher
  }

  /// Requests that this core has sent on and etcd has not answered.
  var awaited: Int { batcher?.waiting ?? 0 }
  /// No stream to etcd is open or wanted.
  var isIdle: Bool { batcher?.isIdle ?? true }

  // MARK: From streams

  func open(_ stream: HeartbeatStream, _ join: Credentials) {
    let number = streams.insert(stream)
    while generations.count <= Int(number) { generations.append(0) }
    generations[Int(number)] &+= 1
    stream.name = Handle(slot: number, generation: generations[Int(number)])
    let mail = bag.mail()
    mail.notes.append(
      HeartbeatMail.Note(
        kind: .join, stream: stream.name, sequence: UInt32(mail.joins.count), lease: 0))
    mail.joins.append(join)
  }

  func beat(_ stream: HeartbeatStream, _ lease: Int64, _ sequence: UInt32) {
    core.shared.counters.add(.heartbeatsReceived, core: core.index)
    bag.mail().notes.append(
      HeartbeatMail.Note(kind: .beat, stream: stream.name, sequence: sequence, lease: lease))
  }

  func left(_ stream: HeartbeatStream) {
    bag.mail().notes.append(
      HeartbeatMail.Note(kind: .leave, stream: stream.name, sequence: 0, lease: 0))
    streams[stream.name.slot] = nil
    streams.remove(stream.name.slot)
  }

  // MARK: To streams

  /// Another core has something for this one. Nothing is under edit.
  func take(_ mail: HeartbeatMail, from sender: Int) {
    if let batcher { batcher.take(mail, from: sender) } else { deliver(mail) }
  }

  private func deliver(_ mail: HeartbeatMail) {
    for reply in mail.replies {
      guard generations[Int(reply.stream.slot)] == reply.stream.generation,
        let stream = streams[reply.stream.slot]
      else { continue }
      switch reply.kind {
      case .answer:
        let passed = stream.answered(reply.sequence, mail.answers[Int(reply.place)])
        for _ in 0..<passed { core.shared.counters.sentMessage(.leaseKeepAlive, core: core.index) }
      case .end: stream.ended(mail.ends[Int(reply.place)])
      }
      guard !stream.isDue else { continue }
      stream.isDue = true
      due.append(stream)
    }
    bag.putBack(mail)
    for stream in due {
      stream.isDue = false
      _ = core.clients.edit(stream.client) { connection in
        stream.flush(on: &connection)
        core.touch(&connection, stream.client)
      }
    }
    due.removeAll(keepingCapacity: true)
  }

  // MARK: The turn

  /// Whatever has come up in this turn goes on. Nothing is under edit.
  func settle() {
    guard let batcher else {
      if let mail = bag.close() { core.send(.heartbeats(mail), to: 0) }
      return
    }
    guard !bag.isEmpty || !batcher.isIdle else { return }
    repeat {
      if let mail = bag.close() { batcher.take(mail, from: 0) }
      batcher.settle(core.now, isEnding: core.drainDeadline != nil)
      // Answers that leave make room for requests that wait.
      if let mail = batcher.mail(to: 0) { deliver(mail) }
    } while !bag.isEmpty
    for other in 1..<core.shared.group.links.count {
      if let mail = batcher.mail(to: other) { core.send(.heartbeats(mail), to: other) }
    }
    core.shared.counters.set(.heartbeatsWaiting, UInt64(batcher.waiting), core: 0)
    schedule()
  }

  /// The timer's turn.
  func look() {
    timer = .none
    timerDue = .distantFuture
    batcher?.look(core.now)
    core.shared.counters.set(.heartbeatStreams, UInt64(batcher?.upstreams ?? 0), core: 0)
  }

  private func schedule() {
    guard let due = batcher?.lookPause.map({ core.now + $0 }), due < timerDue else { return }
    core.timers.cancel(timer)
    timerDue = due
    timer = core.timers.schedule(
      at: due,
      Token(owner: ProxyCore.Owner.core, operation: ProxyCore.CoreTimer.heartbeats, handle: .none))
  }
}

/// Makes the batcher's calls.
private final class HeartbeatFeeds {
  private unowned let core: ProxyCore
  weak var batcher: HeartbeatBatcher?

  init(_ core: ProxyCore) { self.core = core }

  func make(_ line: HeartbeatLine, _ token: [UInt8]) -> HeartbeatFeed? {
    guard let batcher else { return nil }
    let feed = HeartbeatFeed(core, batcher, line, token: token)
    return feed.begin() ? feed : nil
  }
}

extension ProxyCore {
  /// Answers a client's heartbeats from a stream that many share, unless it asks for one of its own.
  ///
  /// A strict namespace looks each lease up before it lets a heartbeat through.
  func makeHeartbeatStream(_ call: borrowing Call, _ fields: HeaderList) -> ClientSession? {
    guard !call.rewrites else { return nil }
    let stream = HeartbeatStream(heartbeats, client: call.client, stream: call.stream)
    heartbeats.open(stream, credentials(fields))
    return stream
  }
}
