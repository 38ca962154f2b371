/// Services and their methods by name.
extension EtcdMethod {
  /// A service: its methods are a range of raw values.
  private enum Service: UInt8 {
    case kv, watch, lease, cluster, maintenance, auth, lock, election, health

    var name: StaticString {
      switch self {
      case .kv: "etcdserverpb.KV"
      case .watch: "etcdserverpb.Watch"
      case .lease: "etcdserverpb.Lease"
      case .cluster: "etcdserverpb.Cluster"
      case .maintenance: "etcdserverpb.Maintenance"
      case .auth: "etcdserverpb.Auth"
      case .lock: "v3lockpb.Lock"
      case .election: "v3electionpb.Election"
      case .health: "grpc.health.v1.Health"
      }
    }

    var first: EtcdMethod {
      switch self {
      case .kv: .range
      case .watch: .watch
      case .lease: .leaseGrant
      case .cluster: .memberAdd
      case .maintenance: .alarm
      case .auth: .authEnable
      case .lock: .lock
      case .election: .campaign
      case .health: .healthCheck
      }
    }

    var last: EtcdMethod {
      switch self {
      case .kv: .compact
      case .watch: .watch
      case .lease: .leaseLeases
      case .cluster: .memberPromote
      case .maintenance: .downgrade
      case .auth: .roleRevokePermission
      case .lock: .unlock
      case .election: .resign
      case .health: .healthWatch
      }
    }
  }

  /// The method of a `:path`, which is case-sensitive.
  static func find(_ path: UnsafeRawBufferPointer) -> EtcdMethod {
    guard path.count > 1, unsafe path[0] == UInt8(ascii: "/") else { return .unknown }
    let names = unsafe UnsafeRawBufferPointer(rebasing: path[1...])
    var value: UInt8 = 0
    while let service = Service(rawValue: value) {
      value += 1
      let name = service.name
      guard names.count > name.utf8CodeUnitCount, unsafe names[name.utf8CodeUnitCount] == UInt8(ascii: "/"),
        unsafe isEqual(UnsafeRawBufferPointer(rebasing: names[..<name.utf8CodeUnitCount]), name)
      else { continue }
      return unsafe find(
        UnsafeRawBufferPointer(rebasing: names[(name.utf8CodeUnitCount + 1)...]), in: service)
    }
    return .unknown
  }

  private static func find(_ name: UnsafeRawBufferPointer, in service: Service) -> EtcdMethod {
    for value in service.first.rawValue...service.last.rawValue {
      if let method = EtcdMethod(rawValue: value), unsafe isEqual(name, method.name) { return method }
    }
    return .unknown
  }

  private static func isEqual(_ text: UnsafeRawBufferPointer, _ constant: StaticString) -> Bool {
    unsafe text.count == constant.utf8CodeUnitCount
      && text.elementsEqual(UnsafeBufferPointer(start: constant.utf8Start, count: constant.utf8CodeUnitCount))
  }

  /// The service's name with its package, as in the path; empty for an unknown method.
  var service: StaticString {
    switch self {
    case _ where rawValue <= Self.compact.rawValue: "etcdserverpb.KV"
    case .watch: "etcdserverpb.Watch"
    case _ where rawValue <= Self.leaseLeases.rawValue: "etcdserverpb.Lease"
    case _ where rawValue <= Self.memberPromote.rawValue: "etcdserverpb.Cluster"
    case _ where rawValue <= Self.downgrade.rawValue: "etcdserverpb.Maintenance"
    case _ where rawValue <= Self.roleRevokePermission.rawValue: "etcdserverpb.Auth"
    case _ where rawValue <= Self.unlock.rawValue: "v3lockpb.Lock"
    case _ where rawValue <= Self.resign.rawValue: "v3electionpb.Election"
    case _ where rawValue <= Self.healthWatch.rawValue: "grpc.health.v1.Health"
    default: ""
    }
  }

  /// The method's own name, as in the path; empty for an unknown one.
  var name: StaticString {
    switch self {
    case .range: "Range"
    case .rangeStream: "RangeStream"
    case .put: "Put"
    case .deleteRange: "DeleteRange"
    case .txn: "Txn"
    case .compact: "Compact"
    case .watch: "Watch"
    case .leaseGrant: "LeaseGrant"
    case .leaseRevoke: "LeaseRevoke"
    case .leaseKeepAlive: "LeaseKeepAlive"
    case .leaseTimeToLive: "LeaseTimeToLive"
    case .leaseLeases: "LeaseLeases"
    case .memberAdd: "MemberAdd"
    case .memberRemove: "MemberRemove"
    case .memberUpdate: "MemberUpdate"
    case .memberList: "MemberList"
    case .memberPromote: "MemberPromote"
    case .alarm: "Alarm"
    case .status: "Status"
    case .defragment: "Defragment"
    case .hash: "Hash"
    case .hashKV: "HashKV"
    case .snapshot: "Snapshot"
    case .moveLeader: "MoveLeader"
    case .downgrade: "Downgrade"
    case .authEnable: "AuthEnable"
    case .authDisable: "AuthDisable"
    case .authStatus: "AuthStatus"
    case .authenticate: "Authenticate"
    case .userAdd: "UserAdd"
    case .userGet: "UserGet"
    case .userList: "UserList"
    case .userDelete: "UserDelete"
    case .userChangePassword: "UserChangePassword"
    case .userGrantRole: "UserGrantRole"
    case .userRevokeRole: "UserRevokeRole"
    case .roleAdd: "RoleAdd"
    case .roleGet: "RoleGet"
    case .roleList: "RoleList"
    case .roleDelete: "RoleDelete"
    case .roleGrantPermission: "RoleGrantPermission"
    case .roleRevokePermission: "RoleRevokePermission"
    case .lock: "Lock"
    case .unlock: "Unlock"
    case .campaign: "Campaign"
    case .proclaim: "Proclaim"
    case .leader: "Leader"
    case .observe: "Observe"
    case .resign: "Resign"
    case .healthCheck: "Check"
    case .healthWatch: "Watch"
    case .unknown: ""
    }
  }
}
