internal import Reactor
internal import Synchronization

/// Who asks, as etcd sees it: nothing is shared between two of them.
///
/// It is the etcd user, not the token: a thousand clients of one user hold a thousand tokens. A token whose user is not known
/// is a principal of its own.
struct Principal: Hashable, Sendable {
  var number: UInt32

  /// Who shows no token.
  static let nobody = Principal(number: 0)
}

/// Who a client's stream is, and what is shown to etcd on its account.
struct Credentials: Sendable {
  let principal: Principal
  /// Empty if it shows none.
  let token: [UInt8]
  /// It wants to be told when there is no leader.
  let requiresLeader: Bool
}

extension HeaderList {
  /// The client's token: under the name that gRPC clients use, else under that of etcd's JSON gateway.
  var clientToken: UnsafeRawBufferPointer? { unsafe value(of: .token) ?? value(of: .authorization) }
}

extension ProxyCore {
  /// Who has sent these fields.
  func credentials(_ fields: HeaderList) -> Credentials {
    let token = unsafe fields.clientToken
    return Credentials(
      principal: unsafe token.map { unsafe principals.find($0) } ?? .nobody,
      token: unsafe token.map { unsafe Array($0) } ?? [],
      requiresLeader: unsafe fields.value(of: .hasleader)?.isEqual(to: "true") == true)
  }
}

/// Which token is whose, learnt from the calls of Authenticate that pass through.
final class Principals: Sendable {
  private struct State {
    var users: [[UInt8]: Principal] = [:]
    var tokens: [[UInt8]: Principal] = [:]
    var last: UInt32 = 0

    mutating func fresh() -> Principal {
      last &+= 1
      return Principal(number: last)
    }
  }

  private let state = Mutex(State())
  /// Changes when a token's principal does.
  private let changes = Atomic<UInt64>(0)

  var version: UInt64 { changes.load(ordering: .acquiring) }

  /// etcd has given the user this token.
  func learn(token: [UInt8], user: [UInt8]) {
    state.withLock { state in
      Self.makeRoom(&state)
      let principal = state.users[user] ?? state.fresh()
      state.users[user] = principal
      state.tokens[token] = principal
    }
    changes.add(1, ordering: .releasing)
  }

  /// The principal behind a token.
  func find(_ token: [UInt8]) -> Principal {
    state.withLock { state in
      if let known = state.tokens[token] { return known }
      Self.makeRoom(&state)
      let principal = state.fresh()
      state.tokens[token] = principal
      return principal
    }
  }

  /// Forgetting costs no more than a question or a second watch upstream, so a full table begins anew.
  private static func makeRoom(_ state: inout State) {
    guard state.tokens.count >= Limits.principals else { return }
    state.tokens.removeAll()
    state.users.removeAll()
  }
}

/// One core's memory of the tokens that it meets again and again, so that it takes no lock for them.
struct PrincipalCache {
  private let principals: Principals
  private var known = TokenTable<Principal>()
  private var version: UInt64 = 0

  init(_ principals: Principals) { self.principals = principals }

  /// The principal behind a token.
  mutating func find(_ token: UnsafeRawBufferPointer) -> Principal {
    guard token.count > 0 else { return .nobody }
    let current = principals.version
    if current != version {
      version = current
      known.removeAll()
    }
    if let principal = unsafe known.find(token) { return principal }
    let bytes = unsafe Array(token)
    let principal = principals.find(bytes)
    known.set(bytes, principal)
    return principal
  }
}

/// A hash of bytes that is the same on all cores (FNV-1a), for places in tables and for whose home a range is.
enum ByteHash {
  static func of(_ bytes: UnsafeRawBufferPointer, _ seed: UInt64 = 0xCBF2_9CE4_8422_2325) -> UInt64 {
    var hash = seed
    for index in 0..<bytes.count { hash = unsafe (hash ^ UInt64(bytes[index])) &* 0x0000_0100_0000_01B3 }
    return hash
  }

  static func of(_ bytes: [UInt8]) -> UInt64 { unsafe bytes.withUnsafeBytes { unsafe of($0) } }
}
