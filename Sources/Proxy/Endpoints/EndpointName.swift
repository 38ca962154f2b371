public import Reactor

/// One item of `--endpoints`, taken apart as etcd's gateway does (server/etcdmain/gateway.go: `stripSchema`,
/// `startGateway`), before any name look-up. The gRPC proxy takes the same forms.
///
/// Accepted are `host:port`, `[v6]:port`, and URLs, of which only `host:port` (and the hint in the scheme) counts.
/// Beyond etcd: `unix:/path`, `unix:///path`, `unix:@abstract`, each also with `unixs:`. Stricter than etcd: a
/// port that is not a number from 1 to 65535 is an error (etcd silently takes 0), and so are an empty host and
/// spaces or control characters in it (etcd fails on these when it resolves).
public struct EndpointName: Hashable, Sendable {
  /// What to connect to.
  public enum Target: Hashable, Sendable {
    /// A host name or IP address (without brackets) and a port above 0.
    case tcp(host: String, port: UInt16)
    /// A unix path in the notation of `Address.unix`.
    case unix(path: String)
  }

  /// What to connect to.
  public let target: Target
  /// What the item says about TLS.
  public let scheme: Scheme

  /// The schemes that mean something. The gRPC proxy goes by them; for the gateway they are a hint.
  public enum Scheme: String, Hashable, Sendable {
    /// None, or another one: whether TLS is spoken depends on the rest of the configuration.
    case none = ""
    /// Cleartext.
    case http
    /// TLS.
    case https
    /// A unix socket; as `none` for TLS.
    case unix
    /// A unix socket with TLS.
    case unixs
  }

  /// The scheme was `https` or `unixs`: the endpoint speaks TLS, whatever the gateway does about it.
  public var isTLSHint: Bool { scheme == .https || scheme == .unixs }

  /// Takes one item apart.
  public init(_ text: String) throws(Malformed) {
    let url = Self.schemeAndRest(text)
    if let url, url.scheme == "unix" || url.scheme == "unixs", !Self.isPort(url.rest) {
      let path = url.rest.hasPrefix("//") ? url.rest.dropFirst(2) : url.rest
      guard case .unix(let path)? = Address(unixPath: String(path)) else { throw Malformed(text, .badPath) }
      target = .unix(path: path)
      scheme = url.scheme == "unixs" ? .unixs : .unix
      return
    }
    // As in etcd, what is no URL with a host is taken as it is, and the error names what was left of it.
    let urlHost = url.flatMap { Self.authority(of: $0.rest) }
    let authority = urlHost ?? Self.authority(of: text[...]) ?? text
    let pair: HostPort
    do { pair = try HostPort(authority) } catch { throw Malformed(authority, .notHostPort(error.reason)) }
    guard Self.isPlausible(host: pair.host) else { throw Malformed(authority, .badHost) }
    guard let port = pair.portNumber, port > 0 else { throw Malformed(authority, .badPort) }
    target = .tcp(host: pair.host, port: port)
    switch url?.scheme {
    case "http"? where urlHost != nil: scheme = .http
    case "https"? where urlHost != nil: scheme = .https
    default: scheme = .none
    }
  }

  /// The name for logs and metrics: `host:port`, `[v6]:port` or `unix:/path`.
  public var displayName: String {
    switch target {
    case .tcp(let host, let port): HostPort(host: host, port: "\(port)").description
    case .unix(let path): "unix:\(path)"
    }
  }

  // MARK: Errors

  /// Why an item is refused.
  public enum Reason: Hashable, Sendable {
    /// Not `host:port`.
    case notHostPort(HostPort.Reason)
    /// The host is empty or has spaces or control characters.
    case badHost
    /// The port is not a number from 1 to 65535.
    case badPort
    /// The unix path is empty, longer than 107 bytes, or has a zero byte.
    case badPath
  }

  /// An item that was refused.
  public struct Malformed: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was looked at: the item, without scheme and path if it was a URL.
    public let text: String
    /// What is wrong with it.
    public let reason: Reason

    init(_ text: String, _ reason: Reason) {
      self.text = text
      self.reason = reason
    }

    /// etcd's own line: `error parsing endpoint "127.0.0.1"`.
    public var description: String { "error parsing endpoint \(EndpointName.quoted(text))" }
  }
}

// MARK: - Parts of a URL

extension EndpointName {
  /// The scheme in lower case (RFC 3986 section 3.1) and what follows its colon; `nil` without scheme.
  static func schemeAndRest(_ text: String) -> (scheme: String, rest: Substring)? {
    guard let colon = text.utf8.firstIndex(of: UInt8(ascii: ":")), isScheme(text[..<colon]) else {
      return nil
    }
    return (text[..<colon].lowercased(), text[text.utf8.index(after: colon)...])
  }

  private static func isScheme(_ text: Substring) -> Bool {
    for (position, byte) in text.utf8.enumerated() {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): continue
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
        if position == 0 { return false }
      default: return false
      }
    }
    return !text.isEmpty
  }

  /// `unix:2379` is a host that happens to be called unix.
  private static func isPort(_ rest: Substring) -> Bool {
    !rest.isEmpty && HostPort(host: "", port: String(rest)).portNumber != nil
  }

  /// The host part of `//user@host:port/path?query#fragment`; `nil` if there is none or it is not well formed.
  static func authority(of rest: Substring) -> String? {
    guard rest.utf8.starts(with: "//".utf8) else { return nil }
    let hierarchy = rest.utf8.dropFirst(2)
    var host = hierarchy.prefix { ![UInt8(ascii: "/"), UInt8(ascii: "?"), UInt8(ascii: "#")].contains($0) }
    if let at = host.lastIndex(of: UInt8(ascii: "@")) { host = host[host.index(after: at)...] }
    guard !host.isEmpty, host.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else { return nil }
    let text = String(Substring(host))
    guard text.utf8.contains(UInt8(ascii: "%")) else { return text }
    return decodingZone(text)
  }

  /// RFC 6874: in a URL the percent sign before the zone of `[fe80::1%25eth0]` is escaped. No other escapes are
  /// taken in a host.
  private static func decodingZone(_ text: String) -> String? {
    let bytes = Array(text.utf8)
    guard bytes.first == UInt8(ascii: "["), let sign = bytes.firstIndex(of: UInt8(ascii: "%")),
      bytes[sign...].starts(with: "%25".utf8), !bytes[(sign + 1)...].contains(UInt8(ascii: "%"))
    else { return nil }
    return String(decoding: bytes[...sign] + bytes[(sign + 3)...], as: UTF8.self)
  }

  private static func isPlausible(host: String) -> Bool {
    !host.isEmpty && host.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "/") }
  }

  /// The text in double quotes with everything escaped that could break out of them or of the line.
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case _ where scalar.value < 0x20 || scalar.value == 0x7F:
        result += scalar.value < 16 ? "\\x0" : "\\x"
        result += String(scalar.value, radix: 16)
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

extension EndpointName {
  /// The host of a TCP endpoint; empty for a unix socket.
  var host: String {
    if case .tcp(let host, _) = target { host } else { "" }
  }

  /// The port of a TCP endpoint; 0 for a unix socket.
  var port: UInt16 {
    if case .tcp(_, let port) = target { port } else { 0 }
  }
}
