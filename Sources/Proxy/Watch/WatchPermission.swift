internal import Reactor

/// etcd checks a permission when a watch is made, so whoever joins a group that exists has to be let in by etcd too: by a small
/// read of the same keys with the client's own token. What etcd has said is remembered for a moment, and forgotten when
/// a call that passes through changes users, roles or permissions.
final class PermissionCheck: OwnCall {
  struct Key: Hashable {
    let range: WatchRange
    let token: [UInt8]
  }

  let key: Key
  let askedAt: Instant
  private unowned let hub: WatchHub
  var waiting: [Handle] = []

  init(_ key: Key, _ hub: WatchHub) {
    self.key = key
    self.hub = hub
    askedAt = hub.core.now
    super.init(hub.core, .range, token: key.token, bypassesCaches: true)
  }

  override func opened() {
    say { output in
      output.appendField(1, key.range.key)
      output.appendField(2, key.range.end)
      output.appendField(3, 1)
      output.appendField(7, true)
      output.appendField(8, true)
    }
    finish()
  }

  override func ended(_ code: GRPCStatus.Code, _ words: [UInt8]) {
    hub.answered(self, isAllowed: code == .ok)
  }
}

/// Who may join without a question, and the question.
extension WatchHub {
  /// Holds the watcher back until etcd has said that its client may read the keys, unless that is known.
  func check(_ handle: Handle, _ stream: WatchStream, _ group: LocalGroup) {
    guard group.key.isShared, !isKnown(stream, group) else { return }
    _ = watchers.edit(handle) { $0.flags.insert(.isUnchecked) }
    let key = PermissionCheck.Key(range: group.key.range, token: stream.credentials.token)
    if let check = checks[key] {
      check.waiting.append(handle)
      return
    }
    let check = PermissionCheck(key, self)
    check.waiting = [handle]
    guard check.begin() else { return answered(check, isAllowed: false) }
    checks[key] = check
  }

  private func isKnown(_ stream: WatchStream, _ group: LocalGroup) -> Bool {
    let (now, shared) = (core.now, core.shared)
    if stream.credentials.token.isEmpty {
      let off = Instant(nanoseconds: shared.authWasOff.load(ordering: .relaxed))
      if off <= now, now - off < Limits.authMemory { return true }
    }
    let isAccepted = unsafe stream.credentials.token.withUnsafeBytes { token in
      unsafe core.acceptedTokens.contains(token, now, within: Limits.authMemory, shared)
    }
    guard isAccepted else { return false }
    // A group that does not stand yet will, if etcd lets its principal.
    return group.state == nil || group.isPermitted(now, shared)
  }

  /// etcd has taken a call without a token: it asks for none.
  func nobodyAccepted() { core.shared.authWasOff.store(core.now.nanoseconds, ordering: .relaxed) }

  func answered(_ check: PermissionCheck, isAllowed: Bool) {
    if checks[check.key] === check { checks[check.key] = nil }
    if isAllowed {
      if check.key.token.isEmpty { nobodyAccepted() }
      unsafe check.key.token.withUnsafeBytes { token in
        unsafe core.acceptedTokens.accepted(token, asked: check.askedAt, core.shared)
      }
    }
    // A connection to etcd may be under edit: the rest is done at the end of the turn.
    verdicts.append((check.waiting, isAllowed))
  }

  /// Lets those in who may; for the others etcd says no in its own words, to a watch of their own.
  func applyVerdicts() {
    let made = verdicts
    verdicts.removeAll(keepingCapacity: true)
    for (waiting, isAllowed) in made {
      for handle in waiting {
        let group: LocalGroup? = watchers.edit(handle) { watcher in
          watcher.flags.remove(.isUnchecked)
          return unsafe watcher.group
        }
        guard let group else { continue }
        guard isAllowed else {
          goAlone(handle)
          continue
        }
        group.permitted(core.now, core.shared)
        group.hasNew = true
        markDirty(group)
      }
    }
  }
}

extension LocalGroup {
  /// etcd has let its principal read the keys.
  func permitted(_ now: Instant, _ shared: ProxyShared) {
    permittedAt = now
    permittedVersion = shared.authVersion.load(ordering: .acquiring)
  }

  /// Whether it lately has.
  func isPermitted(_ now: Instant, _ shared: ProxyShared) -> Bool {
    guard let permittedAt, permittedVersion == shared.authVersion.load(ordering: .acquiring) else {
      return false
    }
    return now - permittedAt < Limits.authMemory
  }
}
