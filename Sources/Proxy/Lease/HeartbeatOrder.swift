internal import Reactor

/// Puts the answers of one client's stream into the order of its requests.
struct HeartbeatOrder {
  /// A ring; an answer that came before an earlier one waits in it.
  private var slots: [HeartbeatAnswer] = []
  private var first: UInt32 = 0
  /// Requests whose answers have not been passed on.
  private(set) var count = 0

  private func place(_ sequence: UInt32) -> Int { Int(sequence) & (slots.count - 1) }

  /// A request has come; returns its number.
  mutating func ask() -> UInt32 {
    if count == slots.count { grow() }
    let sequence = first &+ UInt32(count)
    slots[place(sequence)] = .none
    count += 1
    return sequence
  }

  /// The answer to a request: it is appended to `output` with those that waited for it, or waits.
  ///
  /// - Returns: how many answers were appended.
  mutating func answer(_ sequence: UInt32, _ answer: HeartbeatAnswer, to output: inout ByteBuffer) -> Int {
    let distance = sequence &- first
    guard distance < UInt32(count), slots[place(sequence)].isNone else { return 0 }
    guard distance == 0 else {
      slots[place(sequence)] = answer
      return 0
    }
    answer.append(to: &output)
    var passed = 1
    while passed < count, !slots[place(first &+ UInt32(passed))].isNone {
      slots[place(first &+ UInt32(passed))].append(to: &output)
      passed += 1
    }
    first &+= UInt32(passed)
    count -= passed
    return passed
  }

  private mutating func grow() {
    var larger = Array(repeating: HeartbeatAnswer.none, count: max(1, 2 * slots.count))
    for offset in 0..<count {
      let sequence = first &+ UInt32(offset)
      larger[Int(sequence) & (larger.count - 1)] = slots[place(sequence)]
    }
    slots = larger
  }
}
