internal import Glibc

/// Socket calls that are made once a connection or once a process, not once a byte.
public enum Sockets {
  typealias NameCall = (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32

  static func address(_ descriptor: Int32, _ call: NameCall) -> Address? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return unsafe withUnsafeMutablePointer(to: &storage) { storage in
      unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        guard unsafe call(descriptor, name, &length) == 0 else { return nil }
        return unsafe Address(name, length: length)
      }
    }
  }

  /// The local name of a socket, with the port that the kernel chose.
  public static func address(_ descriptor: Int32) -> Address? { unsafe address(descriptor, getsockname) }

  /// Sets an integer option; failures are of no consequence to any caller (an option that the family lacks).
  public static func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) {
    var value = value
    unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
  }

  /// Probes the peer after that much silence and as often again; ends the connection when sent bytes stay
  /// unacknowledged for `giveUp`. Zero leaves either to the system. Without effect on unix sockets.
  static func setKeepalive(_ descriptor: Int32, after silence: Instant.Span, giveUp: Instant.Span) {
    let tcp = Int32(IPPROTO_TCP)
    if silence > .zero {
      let seconds = Int32(clamping: max(1, silence.nanoseconds / 1_000_000_000))
      setOption(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
      setOption(descriptor, tcp, TCP_KEEPIDLE, seconds)
      setOption(descriptor, tcp, TCP_KEEPINTVL, seconds)
    }
    if giveUp > .zero {
      setOption(descriptor, tcp, TCP_USER_TIMEOUT, Int32(clamping: giveUp.nanoseconds / 1_000_000))
    }
  }
}
