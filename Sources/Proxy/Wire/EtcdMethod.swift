/// A method of etcd, by its path. The raw values of a service's methods are neighbours.
enum EtcdMethod: UInt8, CaseIterable, Sendable {
  // etcdserverpb.KV
  case range, rangeStream, put, deleteRange, txn, compact
  // etcdserverpb.Watch
  case watch
  // etcdserverpb.Lease
  case leaseGrant, leaseRevoke, leaseKeepAlive, leaseTimeToLive, leaseLeases
  // etcdserverpb.Cluster
  case memberAdd, memberRemove, memberUpdate, memberList, memberPromote
  // etcdserverpb.Maintenance
  case alarm, status, defragment, hash, hashKV, snapshot, moveLeader, downgrade
  // etcdserverpb.Auth
  case authEnable, authDisable, authStatus, authenticate, userAdd, userGet, userList, userDelete,
    userChangePassword, userGrantRole, userRevokeRole, roleAdd, roleGet, roleList, roleDelete,
    roleGrantPermission, roleRevokePermission
  // v3lockpb.Lock
  case lock, unlock
  // v3electionpb.Election
  case campaign, proclaim, leader, observe, resign
  // grpc.health.v1.Health
  case healthCheck, healthWatch
  /// Anything else, which is passed on as it is.
  case unknown

  /// How many messages each side sends.
  enum Kind: Sendable {
    case unary, serverStream, bidirectionalStream
  }

  /// How many messages each side sends. Of an unknown method one has to assume the most.
  var kind: Kind {
    switch self {
    case .rangeStream, .snapshot, .observe, .healthWatch: .serverStream
    case .watch, .leaseKeepAlive, .unknown: .bidirectionalStream
    default: .unary
    }
  }

  /// It changes who may do what.
  var changesAuth: Bool {
    switch self {
    case .authEnable, .authDisable, .userAdd, .userDelete, .userChangePassword, .userGrantRole,
      .userRevokeRole,
      .roleAdd, .roleDelete, .roleGrantPermission, .roleRevokePermission:
      true
    default: false
    }
  }

  /// A stream that goes on until its caller has enough. What is unknown may be one.
  var isEndless: Bool { kind != .unary && self != .rangeStream && self != .snapshot }

  /// The call may be made again although a server may have acted on it, as long as the caller has got nothing
  /// of an answer. Fewer methods than Go's client repeats: granting or revoking a lease, moving the leader
  /// and changing an alarm (which only the request tells from reading one) have an effect each time.
  var isRead: Bool {
    switch self {
    case .range, .rangeStream, .leaseTimeToLive, .leaseLeases, .memberList, .status, .hash, .hashKV,
      .snapshot,
      .authStatus, .userGet, .userList, .roleGet, .roleList, .leader, .observe, .healthCheck, .healthWatch:
      true
    default: false
    }
  }

  /// A stream that may begin anew at another server as long as its caller has got nothing: to watch or to keep alive
  /// once more does no harm.
  var mayBeginAnew: Bool { self == .watch || self == .leaseKeepAlive }

  /// The call waits for an endpoint until its deadline; others fail at once while there is none. As etcd's
  /// clients mark them.
  var waitsForReady: Bool { rawValue <= Self.leaseLeases.rawValue }

  /// A request or an answer names keys of the key space, so a namespace has to look into it. Permissions of
  /// roles name keys as well, but real ones: whoever grants them sees the whole key space.
  var carriesKeys: Bool {
    switch self {
    case .range, .rangeStream, .put, .deleteRange, .txn, .watch, .leaseTimeToLive, .lock, .unlock, .campaign,
      .proclaim, .leader, .observe, .resign:
      true
    default: false
    }
  }
}
