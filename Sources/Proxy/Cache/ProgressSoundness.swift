/// Whether a member answers requests for progress behind the events that it has still to send.
///
/// etcd before 3.4.25 and 3.5.8 answers them at once, so that what such an answer says may be ahead of the events.
enum ProgressSoundness {
  static func isSound(version: String) -> Bool {
    let numbers = version.split(separator: ".", maxSplits: 2).map { part in
      Int(part.prefix { $0.isNumber }) ?? -1
    }
    guard numbers.count == 3 else { return false }
    switch (numbers[0], numbers[1]) {
    case (3, 4): return numbers[2] >= 25
    case (3, 5): return numbers[2] >= 8
    default: return numbers[0] > 3 || numbers[0] == 3 && numbers[1] > 5
    }
  }
}
