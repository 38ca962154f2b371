internal import Reactor

/// The tokens that etcd has accepted of late. Whoever shows another one has to ask etcd first.
struct TokenTrust {
  private struct Entry {
    var token: [UInt8] = []
    var accepted = Instant(nanoseconds: 0)
  }

  private var entries = [Entry](repeating: Entry(), count: 256)

  private func place(_ token: UnsafeRawBufferPointer) -> Int {
    unsafe Int(truncatingIfNeeded: ByteHash.of(token) & 255)
  }

  /// etcd has answered a read that was sent at `asked` and showed the token.
  mutating func accepted(_ token: UnsafeRawBufferPointer, asked: Instant) {
    guard token.count > 0 else { return }
    let place = unsafe place(token)
    if unsafe entries[place].token.elementsEqual(token) {
      entries[place].accepted = max(entries[place].accepted, asked)
    } else {
      entries[place] = unsafe Entry(token: Array(token), accepted: asked)
    }
  }

  /// Who shows none is nobody, whom etcd's answers to nobody concern.
  func accepts(_ token: UnsafeRawBufferPointer, _ now: Instant) -> Bool {
    guard token.count > 0 else { return true }
    let entry = unsafe entries[place(token)]
    return unsafe now - entry.accepted <= Limits.permissionAge && entry.token.elementsEqual(token)
  }

  mutating func removeAll() {
    for place in entries.indices { entries[place] = Entry() }
  }
}
