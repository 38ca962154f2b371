internal import Reactor

/// The call at etcd that carries a line's heartbeats.
final class HeartbeatFeed: OwnCall, HeartbeatUpstream {
  private let line: HeartbeatLine
  private unowned let batcher: HeartbeatBatcher

  init(_ core: ProxyCore, _ batcher: HeartbeatBatcher, _ line: HeartbeatLine, token: [UInt8]) {
    self.line = line
    self.batcher = batcher
    super.init(
      core, .leaseKeepAlive, token: token, requiresLeader: line.key.requiresLeader, isPersistent: true)
  }

  override func opened() {
    batcher.opened(line)
    if line.hasDue { sendDue() }
  }

  override func interrupted() { batcher.interrupted(line) }

  override func survives(_ code: GRPCStatus.Code, _ words: [UInt8]) -> Bool {
    batcher.survives(line, code, Self.text(words))
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    batcher.ended(line, code, Self.text(words), core.now)
  }

  private static func text(_ words: [UInt8]) -> String {
    unsafe words.withUnsafeBytes { unsafe String(decoding: PercentCoding.decode($0), as: UTF8.self) }
  }

  override func received(_ message: UnsafeRawBufferPointer) {
    guard let decoded = unsafe try? LeaseKeepAliveResponse(message) else {
      return core.drop(self, .internal, Array("etcd's answer could not be read".utf8))
    }
    core.shared.noteSeen(decoded.header.revision)
    let answer = unsafe HeartbeatAnswer(message, decoded, core.pool)
    batcher.answered(line, decoded.id, answer, core.now)
  }

  func sendDue() {
    var sent: UInt64 = 0
    sayMessages { output in
      while let lease = line.takeDue() {
        let start = output.count
        GRPCMessage.begin(&output)
        LeaseRequest(id: lease).encode(into: &output)
        GRPCMessage.end(&output, from: start)
        sent += 1
      }
    }
    core.shared.counters.add(.heartbeatsSent, sent, core: core.index)
  }

  /// A member without a leader answers no heartbeat, for longer than some leases last.
  func lookAtEndpoint() { core.leaveIfBetter(self) }

  func letGo() { abandon() }
}

extension ProxyCore {
  /// Makes an own call anew if its endpoint is not well and another one is.
  fileprivate func leaveIfBetter(_ own: OwnCall) {
    guard let id = own.id, let upstream = calls.edit(id, { $0.upstream }) ?? nil,
      let slot = upstreams.edit(upstream, { $0.slot }), shared.board.status(slot) != .up,
      table.endpoints.contains(where: { $0.slot != slot && shared.board.status($0.slot) == .up })
    else { return }
    _ = calls.edit(id) { call in
      dropUpstream(&call, .cancel)
      call.tried.insert(slot)
      call.tries = max(call.tries, 1)
    }
    lost(id, certainlyUnseen: false, "the endpoint is not well")
  }
}
