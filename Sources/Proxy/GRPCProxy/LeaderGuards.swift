internal import Reactor

/// Streams of clients that asked for a leader and have nothing at etcd that would end when there is none: a watch stream
/// without watches, heartbeats between two beats. etcd ends those as well (etcdserver/api/v3rpc/interceptor.go: monitorLeader), so
/// one stream without watches at etcd stands for all of a principal.
final class LeaderGuards {
  private unowned let core: ProxyCore
  private var sessions: [(session: ClientSession, credentials: Credentials)] = []
  private var guards: [Principal: LeaderGuard] = [:]
  /// Those that have ended, and how, until the end of the turn.
  private var ended: [(principal: Principal, words: String)] = []
  private var timer = TimerWheel.Timer.none

  init(_ core: ProxyCore) { self.core = core }

  /// A stream has begun.
  func add(_ session: ClientSession, _ credentials: Credentials) {
    guard credentials.requiresLeader else { return }
    sessions.append((session, credentials))
    // Most make their first watch at once, and need no guard.
    schedule(after: .milliseconds(100))
  }

  private func schedule(after pause: Instant.Span) {
    guard timer == .none, !core.isEnding else { return }
    timer = core.timers.schedule(
      at: core.now + pause,
      Token(owner: ProxyCore.Owner.core, operation: ProxyCore.CoreTimer.leaders, handle: .none))
  }

  /// Each second: who needs a guard, and who does not any more.
  func tick() {
    timer = .none
    sessions.removeAll { !$0.session.isOpen }
    var needed: Set<Principal> = []
    for (session, credentials) in sessions
    where session.needsGuard && needed.insert(credentials.principal).inserted {
      guard guards[credentials.principal] == nil else { continue }
      let made = LeaderGuard(self, core, credentials)
      if made.begin() { guards[credentials.principal] = made }
    }
    for (principal, one) in guards where !needed.contains(principal) {
      guards[principal] = nil
      one.abandon()
    }
    if !sessions.isEmpty { schedule(after: .seconds(1)) }
  }

  fileprivate func ended(_ principal: Principal, _ code: GRPCStatus.Code, _ words: [UInt8]) {
    guards[principal] = nil
    guard code == .unavailable, words.elementsEqual(Self.noLeader) else { return }
    ended.append((principal, String(decoding: words, as: UTF8.self)))
  }

  private static let noLeader = Array("etcdserver: no leader".utf8)

  /// The end of a turn: no client is under edit.
  func settle() {
    guard !ended.isEmpty else { return }
    let all = ended
    ended.removeAll()
    for (principal, words) in all {
      for (session, credentials) in sessions where credentials.principal == principal && session.needsGuard {
        session.end(.unavailable, words)
      }
    }
  }
}

/// A watch stream at etcd without watches, which etcd ends when there is no leader.
private final class LeaderGuard: OwnCall {
  private unowned let guards: LeaderGuards
  private let principal: Principal

  init(_ guards: LeaderGuards, _ core: ProxyCore, _ credentials: Credentials) {
    self.guards = guards
    principal = credentials.principal
    super.init(core, .watch, token: credentials.token, requiresLeader: true, isPersistent: true)
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) { guards.ended(principal, code, words) }
}
