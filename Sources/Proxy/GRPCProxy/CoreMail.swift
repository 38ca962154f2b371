internal import Reactor

/// What one core says to another.
enum CoreMail: Sendable {
  case cache(CacheNews)
  case watch(WatchMail)
  /// Clients' heartbeats for the batcher, or its answers.
  case heartbeats(HeartbeatMail)
}

/// The ways from every core to every core.
final class CorePost: Sendable {
  private let cores: Int
  private let boxes: [Mailbox<CoreMail>]

  init(cores: Int) {
    self.cores = cores
    boxes = (0..<cores * cores).map { _ in Mailbox(capacity: Limits.coreMail) }
  }

  /// What `sender` has for `receiver`.
  func box(from sender: Int, to receiver: Int) -> Mailbox<CoreMail> { boxes[sender * cores + receiver] }
}

/// A core's end of it. What does not fit waits here, in order; a core that is told something is woken once a turn.
struct CoreOutbox {
  private var waiting: [[CoreMail]]
  private var isDue: [Bool]

  init(cores: Int) {
    waiting = Array(repeating: [], count: cores)
    isDue = Array(repeating: false, count: cores)
  }

  mutating func send(_ mail: CoreMail, from core: Int, to receiver: Int, _ post: CorePost) {
    isDue[receiver] = true
    guard waiting[receiver].isEmpty, post.box(from: core, to: receiver).push(mail) == nil else {
      waiting[receiver].append(mail)
      return
    }
  }

  /// The receiver has to look at what it shares with us.
  mutating func ring(_ receiver: Int) { isDue[receiver] = true }

  /// Sends what had to wait and says whom to wake. What still waits is tried again in the next turn, which is at once: the
  /// receiver makes room in a moment and says nothing of it.
  mutating func flush(from core: Int, _ post: CorePost, _ wake: (Int) -> Void) {
    var hasRest = false
    for receiver in isDue.indices where isDue[receiver] {
      let box = post.box(from: core, to: receiver)
      var sent = 0
      while sent < waiting[receiver].count, box.push(waiting[receiver][sent]) == nil { sent += 1 }
      waiting[receiver].removeFirst(sent)
      isDue[receiver] = !waiting[receiver].isEmpty
      if isDue[receiver] { hasRest = true }
      wake(receiver)
    }
    if hasRest { wake(core) }
  }
}
