internal import Reactor

/// Reads that are on their way to etcd, and the calls that wait for their answers: a machine that does no I/O.
///
/// One call leads: it is forwarded like any other, and what it is answered is kept for those who wait. Linearizable reads
/// wait for a read that is sent after they have come, so who comes later waits for the next one; serializable reads take
/// whatever is under way.
final class ReadFlights {
  struct Flight: ~Copyable {
    let key: ByteBuffer
    let hash: UInt64
    let isLinearizable: Bool
    var leader: Handle
    var isSent = false
    /// When it was sent first, and the cache's sequence then.
    var sent = (at: Instant(nanoseconds: 0), sequence: UInt64(0))
    /// The answer is for others as well, or for the cache.
    var captures: Bool
    var captured: ByteBuffer
    var waiters: [Handle] = []
    /// Those who wait for the next one.
    var next: [Handle] = []
  }

  /// What lies in the pool goes before the pool does.
  deinit {
    var all: [Handle] = []
    flights.forEach { handle, _ in all.append(handle) }
    for handle in all { _ = flights.remove(handle) }
  }

  /// What a call is to do.
  enum Role {
    case leads(Handle)
    case waits(Handle)
    /// There is no room for it among the others.
    case alone
  }

  private let pool: BlockPool
  let flights: Slab<Flight>
  private var index = HandleIndex()

  init(_ pool: BlockPool) throws(SystemError) {
    self.pool = pool
    flights = try Slab(capacity: Limits.sharedReadsACore)
  }

  /// A read has come that the cache could not answer.
  ///
  /// - Parameters:
  ///   - isShared: others may have the answer, and this call theirs.
  ///   - captures: the cache wants the answer.
  func join(
    _ call: Handle, key: UnsafeRawBufferPointer, hash: UInt64, isLinearizable: Bool, isShared: Bool,
    captures: Bool
  ) -> Role {
    if isShared, let flight = unsafe find(key, hash, isLinearizable) {
      _ = flights.edit(flight) { flight in
        if isLinearizable, flight.isSent { return flight.next.append(call) }
        flight.captures = true
        flight.waiters.append(call)
      }
      return .waits(flight)
    }
    var copy = ByteBuffer(pool)
    unsafe copy.append(key)
    let made = Flight(
      key: copy, hash: hash, isLinearizable: isLinearizable, leader: call, captures: captures,
      captured: ByteBuffer(pool))
    guard let flight = flights.insert(made) else { return .alone }
    if isShared { index.insert(hash, flight) }
    return .leads(flight)
  }

  private func find(_ key: UnsafeRawBufferPointer, _ hash: UInt64, _ isLinearizable: Bool) -> Handle? {
    func find(_ isIt: (borrowing Flight) -> Bool) -> Handle? {
      index.find(hash) { handle in
        flights.edit(handle) { flight in
          unsafe isIt(flight) && SpanView.compare(flight.key.bytes, key) == 0
        } ?? false
      }
    }
    if isLinearizable { return find { $0.isLinearizable } }
    return find { !$0.isLinearizable } ?? find { !$0.isSent || $0.captures }
  }

  /// The leader's request is on its way.
  func sent(_ flight: Handle, _ now: Instant, sequence: UInt64) {
    _ = flights.edit(flight) { flight in
      guard !flight.isSent else { return }
      flight.isSent = true
      flight.sent = (now, sequence)
    }
  }

  /// Bytes of the answer, as the leader's client gets them.
  func capture(_ flight: Handle, _ bytes: UnsafeRawBufferPointer) {
    _ = flights.edit(flight) { flight in
      guard flight.captures else { return }
      if flight.captured.count + bytes.count > Limits.cachedAnswerBytes {
        // Too long to be kept: whoever waits asks for himself.
        flight.captures = false
        return flight.captured.removeAll()
      }
      unsafe flight.captured.append(bytes)
    }
  }

  /// The leader's client does not take the answer: nobody shall wait for it any more.
  ///
  /// - Returns: whether somebody does.
  func stalled(_ flight: Handle) -> Bool {
    let state: (hash: UInt64, isWanted: Bool)? = flights.edit(flight) { flight in
      (flight.hash, !flight.waiters.isEmpty || !flight.next.isEmpty)
    }
    guard let state else { return false }
    index.remove(state.hash, flight)
    return state.isWanted
  }

  /// The read is over.
  func finish(_ flight: Handle) -> Flight? {
    guard let hash = flights.edit(flight, { $0.hash }) else { return nil }
    index.remove(hash, flight)
    return flights.remove(flight)
  }

  /// The leader has gone before it was answered: the next one who is still there takes its place.
  ///
  /// - Parameter isThere: whether a call still waits.
  /// - Returns: the call that leads now.
  func promote(_ flight: Handle, _ isThere: (Handle) -> Bool) -> Handle? {
    let leader: Handle? =
      flights.edit(flight) { flight -> Handle? in
        flight.waiters += flight.next
        flight.next = []
        flight.waiters.removeAll { !isThere($0) }
        guard !flight.waiters.isEmpty else { return nil }
        flight.leader = flight.waiters.removeFirst()
        flight.isSent = false
        flight.captured.removeAll()
        return flight.leader
      } ?? nil
    if leader == nil { _ = finish(flight) }
    return leader
  }

  /// Nobody joins those that are under way any more: what they were allowed may be forbidden by now.
  func unshare() { index = HandleIndex() }
}
