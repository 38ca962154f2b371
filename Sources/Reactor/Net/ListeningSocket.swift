internal import CUring
internal import Glibc

/// Makes listening sockets.
public enum ListeningSocket {
  /// What connections inherit from the listener they come through; set once here instead of once a connection.
  public struct Inherited: Sendable {
    /// Silence after which the peer is probed; zero is off.
    public var keepalive: Instant.Span
    /// How long sent bytes may stay unacknowledged; zero is the system's own limit.
    public var userTimeout: Instant.Span
    /// See the properties.
    public init(keepalive: Instant.Span, userTimeout: Instant.Span) {
      self.keepalive = keepalive
      self.userTimeout = userTimeout
    }
  }

  /// One listener for each core on the same address. The kernel spreads TCP connections over them; a unix socket is
  /// one, which all cores accept from.
  ///
  /// - Throws: the errno of `bind` or `listen`, as a Go program would report it; `EADDRINUSE` also when another
  ///   process of the same user shares ports, which the kernel alone would allow silently.
  public static func make(
    _ address: Address, cores: Int, backlog: Int32, inherited: Inherited
  ) throws(SystemError) -> [Int32] {
    if case .unix(let path) = address {
      let one = try unixListener(address, path, backlog)
      return try share(one, cores: cores, inherited: inherited)
    }
    // Bound without SO_REUSEPORT first: it fails if anybody listens there already. Its port (the kernel's choice, if
    // that was 0) is then bound for each core.
    let first = try bound(address, shared: false)
    var bindTo = address
    if address.port == 0, let actual = Sockets.address(first) { bindTo = actual }
    close(first)
    var made: [Int32] = []
    do throws(SystemError) {
      for _ in 0..<cores {
        let socket = try bound(bindTo, shared: cores > 1)
        made.append(socket)
        prepare(socket, inherited)
        guard listen(socket, backlog) == 0 else { throw SystemError.last }
      }
    } catch {
      for socket in made { close(socket) }
      throw error
    }
    return made
  }

  /// The same listening socket under a descriptor for each core: for unix sockets, and those a service manager passed.
  public static func share(_ socket: Int32, cores: Int, inherited: Inherited) throws(SystemError) -> [Int32] {
    prepare(socket, inherited)
    var made = [socket]
    for _ in 1..<max(1, cores) {
      let copy = fcntl(socket, F_DUPFD_CLOEXEC, 3)
      guard copy >= 0 else { throw SystemError.last }
      made.append(copy)
    }
    return made
  }

  private static func bound(_ address: Address, shared: Bool) throws(SystemError) -> Int32 {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(address.family, kind, 0)
    guard descriptor >= 0 else { throw SystemError.last }
    var one: Int32 = 1
    let size = socklen_t(MemoryLayout<Int32>.size)
    if address.family == AF_INET6 || address.family == AF_INET {
      unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, size)
      if shared { unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &one, size) }
    }
    // Go's net.Listen takes both families on [::], and so do we; a named IPv6 address is that address alone.
    var onlyV6: Int32 = address.isUnspecified ? 0 : 1
    if address.family == AF_INET6 {
      unsafe setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &onlyV6, size)
    }
    let code = unsafe address.withSocketAddress { name, length in
      unsafe bind(descriptor, name, length) == 0 ? 0 : errno
    }
    guard code == 0 else {
      close(descriptor)
      throw SystemError(code: code)
    }
    return descriptor
  }

  private static func prepare(_ socket: Int32, _ inherited: Inherited) {
    Sockets.setOption(socket, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    Sockets.setKeepalive(socket, after: inherited.keepalive, giveUp: inherited.userTimeout)
  }

  /// A socket file that nobody listens on any more is removed first; one that somebody serves is `EADDRINUSE`.
  private static func unixListener(_ address: Address, _ path: String, _ backlog: Int32) throws(SystemError)
    -> Int32
  {
    if !path.hasPrefix("@"), isStale(address) { unsafe unlink(path) }
    let socket = try bound(address, shared: false)
    guard listen(socket, backlog) == 0 else {
      let error = SystemError.last
      close(socket)
      throw error
    }
    return socket
  }

  private static func isStale(_ address: Address) -> Bool {
    let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard probe >= 0 else { return false }
    defer { close(probe) }
    return unsafe address.withSocketAddress { name, length in
      unsafe connect(probe, name, length) != 0 && errno == ECONNREFUSED
    }
  }
}
