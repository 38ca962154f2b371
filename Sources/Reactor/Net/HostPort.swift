/// A `host:port` text taken apart by the rules of Go's `net.SplitHostPort`, which etcd's flags follow.
///
/// Neither part is looked at further: the host may be empty, a name, or an IP address (IPv6 needs brackets, which
/// are taken off); the port may be empty or a service name.
public struct HostPort: Hashable, Sendable {
  /// The host without brackets.
  public let host: String
  /// The text after the last colon.
  public let port: String

  /// Puts a pair together; nothing is checked.
  public init(host: String, port: String) {
    self.host = host
    self.port = port
  }

  /// Takes `text` apart.
  public init(_ text: String) throws(Malformed) {
    let bytes = Array(text.utf8)
    let parts: (host: Range<Int>, port: Int)
    do { parts = try Self.split(bytes) } catch { throw Malformed(text: text, reason: error) }
    host = String(decoding: bytes[parts.host], as: UTF8.self)
    port = String(decoding: bytes[parts.port...], as: UTF8.self)
  }

  /// The port as a number 0…65535 in plain decimal digits; `nil` for a service name or anything out of range.
  public var portNumber: UInt16? {
    guard port.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else { return nil }
    return UInt16(port)
  }

  /// Why a text is not `host:port`.
  public enum Reason: Error, Hashable, Sendable {
    /// There is no colon behind the host.
    case missingPort
    /// An IPv6 address without brackets, or more than a port behind the brackets.
    case tooManyColons
    /// `[` is never closed.
    case missingCloseBracket
    /// `[` somewhere else than at the start.
    case unexpectedOpenBracket
    /// `]` without its `[`.
    case unexpectedCloseBracket
  }

  /// A text that could not be taken apart, and why.
  public struct Malformed: Error, Hashable, Sendable {
    /// The text as given.
    public let text: String
    /// What is wrong with it.
    public let reason: Reason
  }

  private static func split(_ bytes: [UInt8]) throws(Reason) -> (host: Range<Int>, port: Int) {
    let open = UInt8(ascii: "[")
    let close = UInt8(ascii: "]")
    guard let colon = bytes.lastIndex(of: UInt8(ascii: ":")) else { throw .missingPort }
    var host = 0..<colon
    if bytes.first == open {
      guard let end = bytes.firstIndex(of: close) else { throw .missingCloseBracket }
      guard end + 1 == colon else {
        // Only a colon behind the bracket that is not the last one means too many; else the port never starts.
        throw end + 1 < bytes.count && bytes[end + 1] == UInt8(ascii: ":") ? .tooManyColons : .missingPort
      }
      host = 1..<end
    } else if bytes[host].contains(UInt8(ascii: ":")) {
      throw .tooManyColons
    }
    if bytes[host].contains(open) || bytes[colon...].contains(open) { throw .unexpectedOpenBracket }
    if bytes[host].contains(close) || bytes[colon...].contains(close) { throw .unexpectedCloseBracket }
    return (host, colon + 1)
  }
}

extension HostPort: CustomStringConvertible {
  /// Joined again, with brackets where the host has a colon, as Go's `net.JoinHostPort` does.
  public var description: String {
    host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)"
  }
}

extension HostPort.Reason: CustomStringConvertible {
  /// Go's wording.
  public var description: String {
    switch self {
    case .missingPort: "missing port in address"
    case .tooManyColons: "too many colons in address"
    case .missingCloseBracket: "missing ']' in address"
    case .unexpectedOpenBracket: "unexpected '[' in address"
    case .unexpectedCloseBracket: "unexpected ']' in address"
    }
  }
}

extension HostPort.Malformed: CustomStringConvertible {
  /// As Go's `net.AddrError` prints: `address localhost: missing port in address`.
  public var description: String { "address \(text): \(reason)" }
}
