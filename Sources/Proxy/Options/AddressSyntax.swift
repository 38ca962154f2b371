internal import Glibc

/// What the addresses on the command line may look like.
enum AddressSyntax {
  private static let listenForm = "want host:port or unix:/path"

  /// What is wrong with an address to accept clients on, or nil.
  static func listenFault(_ address: String) -> String? {
    if let path = rest(of: address, after: "unix:") { return pathFault(path) }
    guard let (_, port) = hostAndPort(address) else { return listenForm }
    return isPort(port) ? nil : "the port must be a number up to 65535"
  }

  /// What is wrong with an address to serve metrics on, or nil.
  static func metricsFault(_ address: String) -> String? {
    if let path = rest(of: address, after: "unix://") { return pathFault(path) }
    if address.utf8.starts(with: "https://".utf8) { return "metrics are served over plain http only" }
    var authority = Substring(rest(of: address, after: "http://") ?? address)
    if authority.utf8.last == UInt8(ascii: "/") { authority = authority.dropLast() }
    guard let (_, port) = hostAndPort(String(authority)) else {
      return "want http://host:port, host:port or unix:///path"
    }
    return isPort(port) ? nil : "the port must be a number up to 65535"
  }

  /// Whether `server` is an IP address (port 53 then) or has a host and a port.
  static func isServer(_ server: String) -> Bool {
    if isAddress(server) { return true }
    guard let (host, port) = hostAndPort(server) else { return false }
    return !host.isEmpty && isPort(port)
  }

  /// Splits at the last colon by the rules of Go's `net.SplitHostPort`: a host with colons stands in brackets.
  static func hostAndPort(_ text: String) -> (host: String, port: String)? {
    let bytes = text.utf8
    guard let colon = bytes.lastIndex(of: UInt8(ascii: ":")) else { return nil }
    var host = Substring(bytes[..<colon])
    let port = String(Substring(bytes[bytes.index(after: colon)...]))
    if host.utf8.first == UInt8(ascii: "[") {
      guard host.utf8.last == UInt8(ascii: "]") else { return nil }
      host = host.dropFirst().dropLast()
    } else if host.utf8.contains(UInt8(ascii: ":")) {
      return nil
    }
    let brackets = [UInt8(ascii: "["), UInt8(ascii: "]")]
    guard !host.utf8.contains(where: brackets.contains), !port.utf8.contains(where: brackets.contains) else {
      return nil
    }
    return (String(host), port)
  }

  static func rest(of text: String, after prefix: String) -> String? {
    guard text.utf8.starts(with: prefix.utf8) else { return nil }
    return String(Substring(text.utf8.dropFirst(prefix.utf8.count)))
  }

  static func isPort(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.allSatisfy(Ascii.isDecimal) && UInt16(text) != nil
  }

  /// The kernel keeps socket paths in 108 bytes with a zero at the end (unix(7)).
  static func pathFault(_ path: String) -> String? {
    if path.utf8.first != UInt8(ascii: "/") { return "the path of a unix socket must begin with /" }
    return path.utf8.count > 107 ? "the path of a unix socket may have 107 bytes at most" : nil
  }

  private static func isAddress(_ text: String) -> Bool {
    var room = in6_addr()
    return unsafe inet_pton(AF_INET, text, &room) == 1 || inet_pton(AF_INET6, text, &room) == 1
  }
}
