internal import Glibc

/// Where a socket is, or can be reached: an IP address with port, or a unix domain name.
///
/// A value of its own instead of a `sockaddr`, so that protocol code can compare, hash and print addresses, and
/// tests can write them down, without the C library.
@safe
public enum Address: Hashable, Sendable {
  /// IPv4; the address in host order, so that `0x7F00_0001` is 127.0.0.1.
  case v4(UInt32, port: UInt16)
  /// IPv6 in two host-order halves; `scope` is the interface index of a link-local address, else 0.
  case v6(high: UInt64, low: UInt64, port: UInt16, scope: UInt32)
  /// A unix domain path. A leading `@` stands for the abstract namespace; the empty path is an unnamed peer.
  case unix(String)

  /// The longest unix path in bytes that `sockaddr_un` holds with its terminating zero.
  public static let longestUnixPath = 107
}

// MARK: - Reading and writing text

extension Address {
  /// Reads an IP address without name look-up: dotted IPv4, or IPv6 without brackets and with an optional numeric
  /// zone (`fe80::1%3`). `nil` for everything else, interface names as zone included.
  public init?(ip text: String, port: UInt16) {
    // A zero byte would end the text early for inet_pton and let the rest pass unseen.
    guard !text.utf8.contains(0) else { return nil }
    var four = in_addr()
    if unsafe inet_pton(AF_INET, text, &four) == 1 {
      self = .v4(UInt32(bigEndian: four.s_addr), port: port)
      return
    }
    let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    var scope: UInt32 = 0
    if parts.count == 2 {
      guard let zone = Self.zone(parts[1]) else { return nil }
      scope = zone
    }
    var six = in6_addr()
    guard let bare = parts.first, unsafe inet_pton(AF_INET6, String(bare), &six) == 1 else { return nil }
    let halves = Self.halves(of: six)
    self = .v6(high: halves.high, low: halves.low, port: port, scope: scope)
  }

  /// Takes a unix path; `nil` if it is empty, too long for the kernel or, outside of the abstract namespace,
  /// contains a zero byte.
  public init?(unixPath path: String) {
    let valid = (1...Self.longestUnixPath).contains(path.utf8.count)
    guard valid, path.utf8.first == UInt8(ascii: "@") || !path.utf8.contains(0) else { return nil }
    self = .unix(path)
  }

  /// The address alone: `127.0.0.1`, `fe80::1%3` without brackets, or the unix path.
  public var host: String {
    switch self {
    case .v4(let bits, _):
      return "\(bits >> 24).\(bits >> 16 & 255).\(bits >> 8 & 255).\(bits & 255)"
    case .v6(let high, let low, _, let scope):
      return Self.text(high: high, low: low) + (scope == 0 ? "" : "%\(scope)")
    case .unix(let path):
      return path
    }
  }

  private static func zone(_ digits: Substring) -> UInt32? {
    guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else { return nil }
    return UInt32(digits)
  }

  private static func text(high: UInt64, low: UInt64) -> String {
    var bytes = sixBytes(high: high, low: low)
    let room = Int(INET6_ADDRSTRLEN)
    return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: room) { buffer in
      guard let start = buffer.baseAddress,
        let text = unsafe inet_ntop(AF_INET6, &bytes, start, socklen_t(room))
      else { return "" }
      return unsafe String(cString: text)
    }
  }
}

extension Address: CustomStringConvertible {
  /// As Go prints it: `127.0.0.1:2379`, `[::1]:2379`, and `unix:/path` for a unix socket (`unix:` if unnamed).
  public var description: String {
    switch self {
    case .v4(_, let port): "\(host):\(port)"
    case .v6(_, _, let port, _): "[\(host)]:\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }
}

// MARK: - Questions

extension Address {
  /// `AF_INET`, `AF_INET6` or `AF_UNIX`, as `socket(2)` wants it.
  public var family: Int32 {
    switch self {
    case .v4: AF_INET
    case .v6: AF_INET6
    case .unix: AF_UNIX
    }
  }

  /// The port; 0 for a unix socket.
  public var port: UInt16 {
    switch self {
    case .v4(_, let port), .v6(_, _, let port, _): port
    case .unix: 0
    }
  }

  /// The IPv4 address inside an IPv4-mapped IPv6 one (RFC 4291 section 2.5.5.2), which is how a dual-stack
  /// listener shows IPv4 peers; every other address as it is.
  public var unmapped: Address {
    guard case .v6(0, let low, let port, _) = self, low >> 32 == 0xFFFF else { return self }
    return .v4(UInt32(truncatingIfNeeded: low), port: port)
  }

  /// Whether this is the "any" address `0.0.0.0` or `::`. Never true for a unix socket.
  public var isUnspecified: Bool {
    switch unmapped {
    case .v4(let bits, _): bits == 0
    case .v6(let high, let low, _, _): high == 0 && low == 0
    case .unix: false
    }
  }

  /// Whether this is in `127.0.0.0/8` or `::1`. Never true for a unix socket.
  public var isLoopback: Bool {
    switch unmapped {
    case .v4(let bits, _): bits >> 24 == 127
    case .v6(let high, let low, _, _): high == 0 && low == 1
    case .unix: false
    }
  }
}
