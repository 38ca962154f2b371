import Testing

@testable import Proxy

@Suite struct NamespaceStrictTests {
  private let space = Namespace(prefix: Array("ns/".utf8), strict: true)
  private static let denied = Namespace.Outcome.refused(.permissionDenied, "etcdserver: permission denied")

  @Test func whatReachesOutsideIsRefused() {
    let refused: [EtcdMethod] = [
      .compact, .leaseLeases, .memberAdd, .memberRemove, .memberUpdate, .memberPromote, .defragment, .hash,
      .hashKV, .snapshot, .moveLeader, .downgrade, .authEnable, .authDisable, .userAdd, .userGet, .userList,
      .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleGet, .roleList,
      .roleDelete, .roleGrantPermission, .roleRevokePermission, .unknown,
    ]
    for method in EtcdMethod.allCases {
      #expect(space.admits(method) == !refused.contains(method), "\(method)")
      #expect(
        (space.request(method, Wire.field(1, "k")) == Self.denied) == refused.contains(method), "\(method)")
      #expect(NamespaceTests.space.admits(method))
    }
    for method: EtcdMethod in [.memberList, .status, .authenticate, .authStatus, .healthCheck, .leaseGrant] {
      #expect(space.request(method, [0xFF]) == .unchanged)
    }
  }

  @Test func alarmsMayOnlyBeRead() {
    #expect(space.request(.alarm, []) == .unchanged)
    #expect(space.request(.alarm, Wire.field(1, number: 0) + Wire.field(3, number: 1)) == .unchanged)
    #expect(space.request(.alarm, Wire.field(1, number: 2)) == Self.denied)
    #expect(space.request(.alarm, [0xFF]) == .malformed)
  }

  @Test func leasesHaveToBeLookedAt() {
    for method: EtcdMethod in [.leaseRevoke, .leaseKeepAlive, .leaseTimeToLive] {
      #expect(space.request(method, Wire.field(1, number: 7)) == .lease(7, nil))
      #expect(space.request(method, Wire.field(1, number: 7) + Wire.field(1, number: 8)) == .lease(8, nil))
      #expect(space.request(method, []) == .unchanged)
      #expect(NamespaceTests.space.request(method, Wire.field(1, number: 7)) == .unchanged)
    }
    let put = Wire.field(1, "k") + Wire.field(3, number: 7)
    let inside = Wire.field(1, "ns/k") + Wire.field(3, number: 7)
    #expect(space.request(.put, put) == .lease(7, inside))
    #expect(NamespaceTests.space.request(.put, put) == .rewritten(inside))
    #expect(space.request(.put, Wire.field(1, "k")) == .rewritten(Wire.field(1, "ns/k")))
    let lease = Wire.field(2, number: 7)
    #expect(space.request(.lock, lease) == .lease(7, lease + Wire.field(1, "ns/")))
    #expect(space.request(.campaign, lease) == .lease(7, lease + Wire.field(1, "ns/")))
    let leader = Wire.field(1, "e") + Wire.field(2, "e/7") + Wire.field(4, number: 7)
    let leaderInside = Wire.field(1, "ns/e") + Wire.field(2, "ns/e/7") + Wire.field(4, number: 7)
    for method: EtcdMethod in [.proclaim, .resign] {
      #expect(space.request(method, Wire.field(1, leader)) == .lease(7, Wire.field(1, leaderInside)))
    }
  }

  @Test func aTransactionUsesOneLease() {
    func put(_ lease: UInt64, _ prefix: String) -> [UInt8] {
      Wire.field(2, Wire.field(2, Wire.field(1, prefix + "k") + Wire.field(3, number: lease)))
    }
    #expect(
      space.request(.txn, put(7, "") + put(0, "") + put(7, ""))
        == .lease(7, put(7, "ns/") + put(0, "ns/") + put(7, "ns/")))
    #expect(space.request(.txn, put(7, "") + put(8, "")) == Self.denied)
    #expect(
      NamespaceTests.space.request(.txn, put(7, "") + put(8, "")) == .rewritten(put(7, "ns/") + put(8, "ns/"))
    )
  }

  @Test func operationsThatAreNotKnownAreRefused() {
    #expect(space.request(.txn, Wire.field(2, Wire.field(5, "x"))) == Self.denied)
    #expect(
      space.request(.txn, Wire.field(3, Wire.field(1, Wire.field(1, "k")) + Wire.field(5, []))) == Self.denied
    )
    #expect(space.request(.watch, Wire.field(4, [])) == Self.denied)
    #expect(space.request(.watch, Wire.field(3, [])) == .rewritten(Wire.field(3, [])))
    #expect(space.request(.txn, Wire.field(2, [])) == .rewritten(Wire.field(2, [])))
  }
}
