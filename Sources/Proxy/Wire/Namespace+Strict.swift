/// What a strict namespace keeps its clients from.
extension Namespace {
  /// Whether a call may be made at all; the caller may refuse it with `denied` before its first message.
  ///
  /// Refused is what reads or changes things outside the namespace: copies and hashes of the whole store,
  /// compaction (it takes away everybody's history), the list of all leases, members and leadership, users
  /// and roles, and methods that are not known, since nobody can tell what they do. Allowed stays what a
  /// client library needs to find and to judge endpoints (members, status, health), to say who it is, and
  /// reading alarms.
  func admits(_ method: EtcdMethod) -> Bool {
    guard isStrict else { return true }
    switch method {
    case .range, .rangeStream, .put, .deleteRange, .txn, .watch, .leaseGrant, .leaseRevoke, .leaseKeepAlive,
      .leaseTimeToLive, .lock, .unlock, .campaign, .proclaim, .leader, .observe, .resign, .memberList,
      .status,
      .alarm, .authStatus, .authenticate, .healthCheck, .healthWatch:
      return true
    case .compact, .leaseLeases, .memberAdd, .memberRemove, .memberUpdate, .memberPromote, .defragment, .hash,
      .hashKV, .snapshot, .moveLeader, .downgrade, .authEnable, .authDisable, .userAdd, .userGet, .userList,
      .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleGet, .roleList,
      .roleDelete, .roleGrantPermission, .roleRevokePermission, .unknown:
      return false
    }
  }

  /// The verdict on calls of which the message tells whether they reach outside; `nil` for others.
  ///
  /// Leases are named by number and belong to nobody, so one belongs to whoever has keys attached to it.
  /// Attaching a key counts as a use as well: otherwise a client could make a foreign lease partly its own.
  func admission(
    _ method: EtcdMethod, _ message: UnsafeRawBufferPointer
  ) throws(NamespaceFault) -> NamespaceVerdict? {
    guard isStrict else { return nil }
    switch method {
    case .leaseRevoke, .leaseKeepAlive, .leaseTimeToLive:
      // Lease 0 does not exist; etcd says so.
      let lease = unsafe try lastNumber(1, in: message)
      return lease == 0 ? .unchanged : .needsLeaseCheck(lease, isRewritten: false)
    case .alarm:
      // 0 asks for the alarms, anything else changes them.
      return unsafe try lastNumber(1, in: message) == 0 ? .unchanged : Self.denied
    default: return nil
    }
  }

  private func lastNumber(
    _ number: Int, in message: UnsafeRawBufferPointer
  ) throws(NamespaceFault) -> Int64 {
    var reader = unsafe ProtoReader(message)
    var value: Int64 = 0
    while let field = try reader.field() {
      if field.number == number, field.wire == .varint { value = field.signed }
    }
    return value
  }
}
