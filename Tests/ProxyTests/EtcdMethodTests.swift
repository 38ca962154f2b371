import Testing

@testable import Proxy

@Suite struct EtcdMethodTests {
  private func find(_ path: String) -> EtcdMethod {
    Array(path.utf8).withUnsafeBytes { EtcdMethod.find($0) }
  }

  @Test func everyMethodIsFoundByItsPath() {
    for method in EtcdMethod.allCases where method != .unknown {
      #expect(find("/\(method.service)/\(method.name)") == method)
      let name = "\(method.name)"
      // Names of cases are names of methods; where two services share one, the service stands before it.
      #expect("\(method)".lowercased().hasSuffix(name.lowercased()))
    }
    #expect(EtcdMethod.allCases.count == 52)
  }

  @Test(arguments: [
    ("/etcdserverpb.KV/Range", EtcdMethod.range), ("/etcdserverpb.KV/Compact", .compact),
    ("/etcdserverpb.Watch/Watch", .watch), ("/etcdserverpb.Lease/LeaseLeases", .leaseLeases),
    ("/etcdserverpb.Cluster/MemberPromote", .memberPromote),
    ("/etcdserverpb.Maintenance/Downgrade", .downgrade),
    ("/etcdserverpb.Auth/RoleRevokePermission", .roleRevokePermission), ("/v3lockpb.Lock/Unlock", .unlock),
    ("/v3electionpb.Election/Resign", .resign), ("/grpc.health.v1.Health/Watch", .healthWatch),
  ])
  func paths(path: String, method: EtcdMethod) { #expect(find(path) == method) }

  @Test func othersAreUnknown() {
    for path in [
      "", "/", "//", "etcdserverpb.KV/Range", "/etcdserverpb.KV", "/etcdserverpb.KV/",
      "/etcdserverpb.KV/range",
      "/etcdserverpb.KV/Range/", "/etcdserverpb.KV/Rang", "/etcdserverpb.KV/RangeX",
      "/etcdserverpb.KVX/Range",
      "/etcdserverpb.Watch/Range", "/v3lockpb.KV/Range", "/etcdserverpb.KV/Range\0", "//Range",
    ] { #expect(find(path) == .unknown, "\(path)") }
    var storm = ByteStorm(seed: 1)
    let paths = EtcdMethod.allCases.map { Array("/\($0.service)/\($0.name)".utf8) }
    storm.inputs(4000, from: paths) { input in
      let method = input.withUnsafeBytes { EtcdMethod.find($0) }
      if method != .unknown { #expect(input == Array("/\(method.service)/\(method.name)".utf8)) }
    }
  }

  @Test func propertiesOfMethods() {
    let streams = EtcdMethod.allCases.filter { $0.kind != .unary }
    #expect(
      streams == [.rangeStream, .watch, .leaseKeepAlive, .snapshot, .observe, .healthWatch, .unknown])
    for method: EtcdMethod in [
      .put, .leaseGrant, .leaseRevoke, .alarm, .moveLeader, .authenticate, .watch, .unknown,
    ] {
      #expect(!method.isRead)
    }
    for method: EtcdMethod in [.range, .leaseTimeToLive, .memberList, .status, .leader] {
      #expect(method.isRead)
    }
    let waiting = EtcdMethod.allCases.filter { $0.waitsForReady }
    #expect(
      waiting.allSatisfy { ["KV", "Watch", "Lease"].contains("\($0.service)".split(separator: ".").last) })
    #expect(waiting.count == 12)
    let withKeys = EtcdMethod.allCases.filter { $0.carriesKeys }
    for method in EtcdMethod.allCases {
      let looksInside = NamespaceRequest.Shape(method) != nil || NamespaceResponse.Shape(method) != nil
      #expect(looksInside == withKeys.contains(method))
    }
  }
}
