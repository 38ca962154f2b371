public import Glibc

// Between `Address` and the C library's `sockaddr` family.

extension Address {
  /// Offset of `sun_path`, the bytes of a `sockaddr_un` that are not its name.
  private static let unixHeader = MemoryLayout<sa_family_t>.size
  private static let unixRoom = MemoryLayout<sockaddr_un>.size - unixHeader

  /// Lends the address in the form that `bind`, `connect` and their io_uring operations take.
  ///
  /// A unix path that `init(unixPath:)` would refuse is lent with length 0, for which the kernel answers `EINVAL`:
  /// a shortened path would be another socket. The pointer is valid during the call only.
  public func withSocketAddress<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    switch self {
    case .v4(let bits, let port):
      var raw = sockaddr_in()
      raw.sin_family = sa_family_t(AF_INET)
      raw.sin_port = port.bigEndian
      raw.sin_addr.s_addr = bits.bigEndian
      return unsafe Self.lend(&raw, length: MemoryLayout<sockaddr_in>.size, body)
    case .v6(let high, let low, let port, let scope):
      var raw = sockaddr_in6()
      raw.sin6_family = sa_family_t(AF_INET6)
      raw.sin6_port = port.bigEndian
      raw.sin6_addr = Self.sixBytes(high: high, low: low)
      raw.sin6_scope_id = scope
      return unsafe Self.lend(&raw, length: MemoryLayout<sockaddr_in6>.size, body)
    case .unix(let path):
      var raw = sockaddr_un()
      let length = Self.fill(&raw, path: path)
      return unsafe Self.lend(&raw, length: length, body)
    }
  }

  /// Reads what `accept`, `getsockname` or a resolver filled in; `nil` if the family is unknown, the length is too
  /// short for it, or a unix name is longer than `longestUnixPath`.
  ///
  /// An IPv4-mapped IPv6 address stays IPv6 (see `unmapped`). A unix path that begins with `@` is read as `./@…`,
  /// so that it cannot be taken for an abstract name; bytes that are not UTF-8 are replaced.
  public init?(_ pointer: UnsafePointer<sockaddr>, length: socklen_t) {
    let raw = unsafe UnsafeRawBufferPointer(start: pointer, count: Int(length))
    guard raw.count >= Self.unixHeader else { return nil }
    switch unsafe Int32(raw.loadUnaligned(as: sa_family_t.self)) {
    case AF_INET where raw.count >= MemoryLayout<sockaddr_in>.size:
      let four = unsafe raw.loadUnaligned(as: sockaddr_in.self)
      self = .v4(UInt32(bigEndian: four.sin_addr.s_addr), port: UInt16(bigEndian: four.sin_port))
    case AF_INET6 where raw.count >= MemoryLayout<sockaddr_in6>.size:
      let six = unsafe raw.loadUnaligned(as: sockaddr_in6.self)
      let halves = Self.halves(of: six.sin6_addr)
      self = .v6(
        high: halves.high, low: halves.low, port: UInt16(bigEndian: six.sin6_port),
        scope: six.sin6_scope_id)
    case AF_UNIX:
      // The kernel reports one byte more than fits for a path without terminating zero.
      let name = unsafe raw[Self.unixHeader..<min(raw.count, MemoryLayout<sockaddr_un>.size)]
      self.init(unixName: unsafe Array(name))
    default:
      return nil
    }
  }

  /// Reads the content of a `sun_path` field, as a `sockaddr_un` and the PROXY protocol carry it: a path up to the
  /// first zero byte, or an abstract name after a leading zero. `nil` above `longestUnixPath` bytes.
  public init?(unixName bytes: [UInt8]) {
    guard bytes.first == 0 && bytes.count > 1 else {
      let path = bytes.prefix { $0 != 0 }
      guard path.count <= Self.longestUnixPath else { return nil }
      let text = String(decoding: path, as: UTF8.self)
      self = .unix(path.first == UInt8(ascii: "@") ? "./" + text : text)
      return
    }
    guard bytes.count <= Self.longestUnixPath else { return nil }
    self = .unix("@" + String(decoding: bytes.dropFirst(), as: UTF8.self))
  }

  // MARK: Parts

  private static func lend<Raw, R>(
    _ raw: inout Raw, length: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
  ) -> R {
    unsafe withUnsafePointer(to: &raw) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(length)) }
    }
  }

  /// Writes a path and returns the length of the whole; 0 if it cannot be written.
  private static func fill(_ raw: inout sockaddr_un, path: String) -> Int {
    raw.sun_family = sa_family_t(AF_UNIX)
    guard !path.isEmpty else { return unixHeader }
    guard case .unix? = Address(unixPath: path) else { return 0 }
    let isAbstract = path.utf8.first == UInt8(ascii: "@")
    let count = path.utf8.count
    unsafe withUnsafeMutableBytes(of: &raw.sun_path) { field in
      unsafe field.copyBytes(from: path.utf8)
      if isAbstract { unsafe field[0] = 0 }
    }
    // The length decides where an abstract name ends; a path is ended by its zero byte, which counts.
    return unixHeader + (isAbstract ? count : min(count + 1, unixRoom))
  }

  static func halves(of six: in6_addr) -> (high: UInt64, low: UInt64) {
    unsafe withUnsafeBytes(of: six) { bytes in
      (
        UInt64(bigEndian: unsafe bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self)),
        UInt64(bigEndian: unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      )
    }
  }

  static func sixBytes(high: UInt64, low: UInt64) -> in6_addr {
    var six = in6_addr()
    unsafe withUnsafeMutableBytes(of: &six) { bytes in
      unsafe bytes.storeBytes(of: high.bigEndian, toByteOffset: 0, as: UInt64.self)
      unsafe bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }
    return six
  }
}
