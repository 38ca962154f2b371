internal import CUring
internal import Glibc
internal import Reactor

/// The addresses of this machine's interfaces.
enum LocalAddresses {
  /// Whether a connection to `address` ends on this machine: whether one could listen there.
  static func contains(_ address: Address) -> Bool {
    if case .unix = address { return false }
    let probe = socket(address.family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard probe >= 0 else { return false }
    defer { close(probe) }
    let anyPort: Address =
      switch address {
      case .v4(let bits, _): .v4(bits, port: 0)
      case .v6(let high, let low, _, let scope): .v6(high: high, low: low, port: 0, scope: scope)
      case .unix: address
      }
    return unsafe anyPort.withSocketAddress { name, length in unsafe bind(probe, name, length) == 0 }
  }
}
