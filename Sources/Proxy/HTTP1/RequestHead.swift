/// The head of an HTTP/1.x request, as far as a server of a few pages needs it.
public struct RequestHead: Hashable, Sendable {
  /// The method as sent; methods are case-sensitive.
  public internal(set) var method = ""
  /// The path of the target, starting with `/`, percent escapes left alone; `*` for the server as a whole.
  public internal(set) var path = ""
  /// What stands behind the first `?` of the target.
  public internal(set) var query: String?
  /// 0 or 1, of HTTP/1.0 or HTTP/1.1 (and any later 1.x).
  public internal(set) var minorVersion = 1
  /// The host and port that the client means, from the target if that is a URL, else from `Host`.
  public internal(set) var host: String?
  /// Whether the client expects to send more requests on the connection.
  public internal(set) var keepsAlive = true
  /// The announced body.
  public internal(set) var body = Body.none
  /// The `Accept` lines, joined.
  public internal(set) var accept = ""
  /// The client waits for `100 Continue` before it sends the body.
  public internal(set) var expectsContinue = false

  /// How a request announces its body (RFC 9112 section 6.3).
  public enum Body: Hashable, Sendable {
    /// No body.
    case none
    /// So many bytes.
    case length(UInt64)
    /// In chunks.
    case chunked
  }

  /// A head that is answered with an error.
  struct Refusal: Error {
    let status: Int
    static let malformed = Refusal(status: 400)
  }

  /// RFC 9112 section 3: method, target and version, one space between each.
  init(requestLine line: [UInt8]) throws(Refusal) {
    let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    guard parts.count == 3, HeaderFields.isToken(parts[0]), parts[1].allSatisfy({ $0 > 0x20 && $0 < 0x7F })
    else {
      throw .malformed
    }
    method = String(decoding: parts[0], as: UTF8.self)
    minorVersion = try Self.minorVersion(Array(parts[2]))
    try take(target: parts[1])
  }

  private static func minorVersion(_ text: [UInt8]) throws(Refusal) -> Int {
    let isDigit = { (byte: UInt8) in byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
    guard text.count == 8, text.starts(with: "HTTP/".utf8), isDigit(text[5]), text[6] == UInt8(ascii: "."),
      isDigit(text[7])
    else { throw .malformed }
    guard text[5] == UInt8(ascii: "1") else { throw Refusal(status: 505) }
    return text[7] == UInt8(ascii: "0") ? 0 : 1
  }

  /// RFC 9112 section 3.2: `/path?query`, a URL, or `*` for OPTIONS. The form of CONNECT is not taken.
  private mutating func take(target: ArraySlice<UInt8>) throws(Refusal) {
    guard !target.contains(UInt8(ascii: "#")) else { throw .malformed }
    if method == "OPTIONS", target.elementsEqual("*".utf8) {
      path = "*"
      return
    }
    var rest = target
    if target.first != UInt8(ascii: "/") { rest = try takeAuthority(target) }
    let mark = rest.firstIndex(of: UInt8(ascii: "?"))
    let local = rest[..<(mark ?? rest.endIndex)]
    path = local.isEmpty ? "/" : String(decoding: local, as: UTF8.self)
    query = mark.map { String(decoding: rest[($0 + 1)...], as: UTF8.self) }
  }

  /// Takes scheme and host off a URL and returns the rest.
  private mutating func takeAuthority(_ target: ArraySlice<UInt8>) throws(Refusal) -> ArraySlice<UInt8> {
    let lower = target.prefix(8).map(HeaderFields.lowercase)
    let scheme = ["http://", "https://"].first { lower.starts(with: $0.utf8) }
    guard let scheme else { throw .malformed }
    let rest = target.dropFirst(scheme.utf8.count)
    let authority = rest.prefix { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }
    guard !authority.isEmpty, HeaderFields.isHost(authority) else { throw .malformed }
    host = String(decoding: authority, as: UTF8.self)
    return rest.dropFirst(authority.count)
  }

  /// Draws the conclusions from all header lines together.
  mutating func finish(_ fields: HeaderFields) throws(Refusal) {
    // RFC 9112 section 3.2: exactly one in HTTP/1.1, and the target's own host wins.
    guard fields.hosts.count <= 1, minorVersion == 0 || fields.hosts.count == 1 else { throw .malformed }
    host = host ?? fields.hosts.first
    accept = fields.accepts.joined(separator: ", ")
    let hasClose = fields.connection.contains("close")
    keepsAlive = !hasClose && (minorVersion > 0 || fields.connection.contains("keep-alive"))
    if !fields.expectations.isEmpty, minorVersion > 0 {
      guard fields.expectations.allSatisfy({ $0 == "100-continue" }) else { throw Refusal(status: 417) }
      expectsContinue = true
    }
    body = try announcedBody(fields)
  }

  private func announcedBody(_ fields: HeaderFields) throws(Refusal) -> Body {
    guard fields.codings.isEmpty else {
      // Both, or a coding in HTTP/1.0, is how requests are smuggled (RFC 9112 section 6.1).
      guard fields.length == nil, minorVersion > 0 else { throw .malformed }
      guard fields.codings == ["chunked"] else { throw Refusal(status: 501) }
      return .chunked
    }
    guard let length = fields.length, length > 0 else { return .none }
    return .length(length)
  }
}
