internal import Reactor

/// What clients' streams of one core have to say to the batcher in a turn, or the batcher to them.
///
/// An object goes back and forth between two cores and is filled again and again, so that nothing is allocated. It has one
/// holder at a time, who alone touches it.
final class HeartbeatMail: @unchecked Sendable {
  /// To the batcher.
  struct Note {
    enum Kind { case join, beat, leave }
    let kind: Kind
    /// The stream's name on its core.
    let stream: Handle
    /// Which of the stream's requests it is, or where in `joins` its particulars are.
    let sequence: UInt32
    let lease: Int64
  }

  /// To a stream.
  struct Reply {
    enum Kind { case answer, end }
    let kind: Kind
    let stream: Handle
    let sequence: UInt32
    /// Where in `answers` or in `ends` it is.
    let place: UInt32
  }

  /// How streams end.
  struct End {
    let code: GRPCStatus.Code
    let words: String
  }

  var notes: [Note] = []
  var joins: [Credentials] = []
  var replies: [Reply] = []
  var answers: [HeartbeatAnswer] = []
  var ends: [End] = []
  /// Which of etcd's answers stands last in `answers`.
  var lastAnswer: UInt64 = 0
  /// Empty ones that go along.
  fileprivate var next: HeartbeatMail?

  /// What a burst has made large is not kept for ever.
  private static let keptEntries = 1024

  fileprivate func clear() {
    notes.removeAll(keepingCapacity: notes.capacity <= Self.keptEntries)
    joins.removeAll(keepingCapacity: joins.capacity <= Self.keptEntries)
    replies.removeAll(keepingCapacity: replies.capacity <= Self.keptEntries)
    answers.removeAll(keepingCapacity: answers.capacity <= Self.keptEntries)
    ends.removeAll(keepingCapacity: ends.capacity <= Self.keptEntries)
    lastAnswer = 0
  }
}

/// One end of a way between two cores: what is being written, and empty mail.
struct HeartbeatMailbag {
  /// Kept for oneself, since one mail may be answered by several; what is more goes back to the other end with the next.
  private static let kept = 32
  private static let most = 64

  private var open: HeartbeatMail?
  private var empty: HeartbeatMail?
  private var count = 0

  var isEmpty: Bool { open == nil }

  /// What is being written.
  mutating func mail() -> HeartbeatMail {
    if let open { return open }
    let mail = takeEmpty() ?? HeartbeatMail()
    open = mail
    return mail
  }

  /// What has been written, to be sent.
  mutating func close() -> HeartbeatMail? {
    guard let mail = open else { return nil }
    open = nil
    while count > Self.kept, let surplus = takeEmpty() {
      surplus.next = mail.next
      mail.next = surplus
    }
    return mail
  }

  /// Takes back what has been read, and those that came along.
  mutating func putBack(_ mail: HeartbeatMail) {
    mail.clear()
    var next: HeartbeatMail? = mail
    while let mail = next {
      next = mail.next
      mail.next = nil
      guard count < Self.most else { continue }
      mail.next = empty
      empty = mail
      count += 1
    }
  }

  private mutating func takeEmpty() -> HeartbeatMail? {
    guard let mail = empty else { return nil }
    empty = mail.next
    mail.next = nil
    count -= 1
    return mail
  }
}
