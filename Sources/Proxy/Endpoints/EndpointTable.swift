internal import Reactor

/// One endpoint as the cores need it: where it is and how to count it.
struct Endpoint: Equatable, Sendable {
  /// Its row in the `EndpointBoard`; stays while the endpoint exists.
  let slot: Int
  /// `host:port` or `unix:path` as the operator wrote it, for logs and metrics.
  let name: String
  /// What the name resolved to, never empty.
  let addresses: [Address]
  /// SRV priority; lower ones first.
  let priority: UInt16
  /// Share of the connections within its priority.
  let weight: UInt16

  /// What goes into `:authority`.
  let authority: [UInt8]
  /// The host that a certificate must be for; nil on a unix socket.
  let serverName: String?

  init(slot: Int, name: String, addresses: [Address], priority: UInt16, weight: UInt16, host: String = "") {
    self.slot = slot
    self.name = name
    self.addresses = addresses
    self.priority = priority
    self.weight = weight
    authority = Array((host.isEmpty ? "localhost" : name).utf8)
    serverName = host.isEmpty ? nil : host
  }

  /// Whether what is known of one holds for the other.
  func isSamePlace(as other: Endpoint) -> Bool {
    slot == other.slot && name == other.name && addresses == other.addresses
  }
}

/// The endpoints as they are at one time: immutable, shared by all cores, replaced as a whole when names resolve anew.
final class EndpointTable: Sendable {
  /// In the order of the command line or of discovery.
  let endpoints: [Endpoint]
  /// For each priority, best first: indices into `endpoints` in the order of the weighted round robin.
  private let schedules: [[Int]]
  private let balance: GatewayOptions.Balance

  init(endpoints: [Endpoint], balance: GatewayOptions.Balance) {
    self.endpoints = endpoints
    self.balance = balance
    let entries = endpoints.enumerated().map {
      Schedule.Entry(index: $0.offset, priority: $0.element.priority, weight: $0.element.weight)
    }
    schedules = Schedule.build(entries).map(\.slots)
  }

  /// The endpoint to try next.
  ///
  /// Up before sick before down, and within each the best priority first: an endpoint that is thought to be down is
  /// still tried when there is nothing better, because being wrong about it costs less than refusing the client.
  /// - Parameter tried: endpoints that this connection has already tried.
  func pick(_ board: EndpointBoard, tried: EndpointSet) -> Endpoint? {
    let turn = balance == .roundRobin ? Int(board.nextTurn()) : 0
    for status in EndpointBoard.Status.allCases {
      for schedule in schedules {
        let found =
          balance == .roundRobin
          ? nextInTurn(schedule, turn, status, board, tried)
          : leastLoaded(schedule, status, board, tried)
        if let found { return found }
      }
    }
    return nil
  }

  private func nextInTurn(
    _ schedule: [Int], _ turn: Int, _ status: EndpointBoard.Status, _ board: EndpointBoard,
    _ tried: EndpointSet
  ) -> Endpoint? {
    for step in 0..<schedule.count {
      let endpoint = endpoints[schedule[(turn + step) % schedule.count]]
      if board.status(endpoint.slot) == status, !tried.contains(endpoint.slot) { return endpoint }
    }
    return nil
  }

  private func leastLoaded(
    _ schedule: [Int], _ status: EndpointBoard.Status, _ board: EndpointBoard, _ tried: EndpointSet
  ) -> Endpoint? {
    var best: (endpoint: Endpoint, load: Double)?
    for endpoint in endpoints where endpoint.priority == endpoints[schedule[0]].priority {
      guard board.status(endpoint.slot) == status, !tried.contains(endpoint.slot) else { continue }
      let load = Double(board.active(slot: endpoint.slot)) / Double(max(1, endpoint.weight))
      if load < best?.load ?? .infinity { best = (endpoint, load) }
    }
    return best?.endpoint
  }
}

/// A small set of endpoint slots, kept in a connection while it looks for one that answers.
struct EndpointSet: Sendable {
  private var bits: (UInt64, UInt64) = (0, 0)

  mutating func insert(_ slot: Int) {
    if slot < 64 { bits.0 |= 1 << UInt64(slot) } else { bits.1 |= 1 << UInt64(slot - 64) }
  }

  func contains(_ slot: Int) -> Bool {
    slot < 64 ? bits.0 & (1 << UInt64(slot)) != 0 : bits.1 & (1 << UInt64(slot - 64)) != 0
  }
}
