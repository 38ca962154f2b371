public import Reactor

/// The PROXY protocol, versions 1 (text) and 2 (binary), by which a proxy tells the next hop who the client is
/// (HAProxy's `doc/proxy-protocol.txt`).
///
/// Addresses are believed only from peers that the operator trusts; that decision is the caller's.
public enum ProxyProtocol {
  /// What the first bytes of a connection amount to.
  public enum Verdict: Hashable, Sendable {
    /// A header so far, not yet complete. Ask again with more bytes, from the same start.
    case needMore
    /// A whole header of `length` bytes; the payload follows it. The addresses are `nil` where the sender does not
    /// know them or speaks for itself (`UNKNOWN`, `LOCAL`, unspecified family, datagrams).
    case header(source: Address?, destination: Address?, length: Int)
    /// Not a header, or a broken one: the connection must be closed.
    case invalid(Reason)
  }

  /// What is wrong with a header.
  public enum Reason: String, Hashable, Sendable {
    /// Neither version's signature.
    case signature = "no PROXY protocol signature"
    /// Version 1: no line end within 107 bytes, or a CR or LF of its own.
    case line = "bad line end in PROXY header"
    /// Version 1: not `TCP4`, `TCP6` or `UNKNOWN`. Version 2: an unassigned family or transport.
    case family = "unknown address family in PROXY header"
    /// An address, port or their number is wrong.
    case address = "bad address in PROXY header"
    /// Version 2: the version nibble is not 2 or the command unassigned.
    case command = "unknown version or command in PROXY header"
    /// Version 2: more than `longestBlock` bytes behind the fixed part, or too few for the family.
    case length = "bad length in PROXY header"
  }

  /// The longest version 1 header with its CR LF, in bytes.
  public static let longestLine = 107
  /// The longest address and TLV block that is accepted behind the 16 bytes of version 2.
  public static let longestBlock = 4096

  static let signature1 = Array("PROXY ".utf8)
  static let signature2: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
  static let fixedPart = 16
  static let unixField = 108

  /// Judges the bytes received so far, of which the first must be the first of the connection.
  public static func parse(_ bytes: RawSpan) -> Verdict {
    if bytes.agrees(with: signature1) {
      return bytes.byteCount < signature1.count ? .needMore : parseLine(bytes)
    }
    guard bytes.agrees(with: signature2) else { return .invalid(.signature) }
    return bytes.byteCount < fixedPart ? .needMore : parseBlock(bytes)
  }
}

// MARK: - Version 1

extension ProxyProtocol {
  private static func parseLine(_ bytes: RawSpan) -> Verdict {
    let carriageReturn = UInt8(ascii: "\r")
    let lineFeed = UInt8(ascii: "\n")
    let reach = min(bytes.byteCount, longestLine)
    for offset in signature1.count..<reach {
      let byte = bytes.octet(offset)
      if byte == lineFeed { return .invalid(.line) }
      guard byte == carriageReturn else { continue }
      guard offset + 1 < longestLine else { return .invalid(.line) }
      guard offset + 1 < bytes.byteCount else { return .needMore }
      guard bytes.octet(offset + 1) == lineFeed else { return .invalid(.line) }
      return parseFields(bytes.text(signature1.count..<offset), length: offset + 2)
    }
    return reach < longestLine ? .needMore : .invalid(.line)
  }

  private static func parseFields(_ line: String, length: Int) -> Verdict {
    let fields = line.split(separator: " ", omittingEmptySubsequences: false)
    // The rest of an UNKNOWN line is to be ignored, whatever it is.
    if fields.first == "UNKNOWN" { return .header(source: nil, destination: nil, length: length) }
    guard let family = fields.first, family == "TCP4" || family == "TCP6" else { return .invalid(.family) }
    guard fields.count == 5,
      let source = address(fields[1], port: fields[3], isSix: family == "TCP6"),
      let destination = address(fields[2], port: fields[4], isSix: family == "TCP6")
    else { return .invalid(.address) }
    return .header(source: source, destination: destination, length: length)
  }

  private static func address(_ host: Substring, port: Substring, isSix: Bool) -> Address? {
    // "Heading zeroes are not permitted", and a zone is not part of the format.
    guard let number = HostPort(host: "", port: String(port)).portNumber, "\(number)" == port,
      !host.utf8.contains(UInt8(ascii: "%")), host.utf8.contains(UInt8(ascii: ":")) == isSix
    else { return nil }
    return Address(ip: String(host), port: number)
  }
}

// MARK: - Version 2

extension ProxyProtocol {
  private static func parseBlock(_ bytes: RawSpan) -> Verdict {
    let command = bytes.octet(12)
    guard command == 0x20 || command == 0x21 else { return .invalid(.command) }
    let block = Int(bytes.number16(14))
    guard block <= longestBlock else { return .invalid(.length) }
    let isLocal = command == 0x20
    let family = bytes.octet(13)
    // A LOCAL header is the sender's own connection: its family and block are to be skipped unread.
    guard isLocal || (family >> 4 <= 3 && family & 15 <= 2) else { return .invalid(.family) }
    let isStream = !isLocal && family & 15 == 1
    let size = isStream ? [0, 4, 16, unixField][Int(family >> 4 & 3)] : 0
    let ports = size == 0 || size == unixField ? 0 : 2
    guard block >= 2 * (size + ports) else { return .invalid(.length) }
    guard bytes.byteCount >= fixedPart + block else { return .needMore }
    let end = fixedPart + block
    guard size > 0 else { return .header(source: nil, destination: nil, length: end) }
    let portAt = fixedPart + 2 * size
    return .header(
      source: address(bytes, at: fixedPart, size: size, portAt: portAt),
      destination: address(bytes, at: fixedPart + size, size: size, portAt: portAt + 2), length: end)
  }

  private static func address(_ bytes: RawSpan, at offset: Int, size: Int, portAt: Int) -> Address? {
    switch size {
    case 4: .v4(bytes.number32(offset), port: bytes.number16(portAt))
    case 16:
      .v6(
        high: bytes.number64(offset), low: bytes.number64(offset + 8), port: bytes.number16(portAt), scope: 0)
    default: unixAddress(bytes.octets(offset..<offset + size))
    }
  }

  /// The field has a fixed size: the zeros that fill it up are not part of an abstract name.
  private static func unixAddress(_ field: [UInt8]) -> Address? {
    let used = field.lastIndex { $0 != 0 }.map { $0 + 1 } ?? 0
    return Address(unixName: Array(field[..<used]))
  }
}

// MARK: - Writing

extension ProxyProtocol {
  /// A version 1 header. `UNKNOWN` unless both addresses are IP addresses; if only one is IPv6, or IPv4-mapped, the
  /// other one is mapped. Zones are left out, as the format has no room for them.
  public static func line(source: Address?, destination: Address?) -> [UInt8] {
    guard let pair = Pair(source, destination), pair.size != unixField else {
      return Array("PROXY UNKNOWN\r\n".utf8)
    }
    let (from, to) = (pair.source, pair.destination)
    let family = pair.size == 4 ? "TCP4" : "TCP6"
    return Array("PROXY \(family) \(from.host) \(to.host) \(from.port) \(to.port)\r\n".utf8)
  }

  /// A version 2 header of command PROXY for a stream; of unspecified family if an address is missing, or only one
  /// of them is a unix socket.
  public static func block(source: Address?, destination: Address?) -> [UInt8] {
    guard let pair = Pair(source, destination) else { return signature2 + [0x21, 0x00, 0, 0] }
    var addresses = pair.source.octets + pair.destination.octets
    if pair.size != unixField {
      for port in [pair.source.port, pair.destination.port] { addresses.append(networkOrder: port) }
    }
    let family: UInt8 = pair.size == 4 ? 0x11 : pair.size == 16 ? 0x21 : 0x31
    return signature2 + [0x21, family, 0, UInt8(addresses.count)] + addresses
  }

  /// Two addresses of one family, without zones, and the size of each in version 2.
  private struct Pair {
    let source: Address
    let destination: Address
    let size: Int

    init?(_ source: Address?, _ destination: Address?) {
      guard let source = source?.unmapped, let destination = destination?.unmapped else { return nil }
      switch (source, destination) {
      case (.v4, .v4): (self.source, self.destination, size) = (source, destination, 4)
      case (.unix, .unix): (self.source, self.destination, size) = (source, destination, unixField)
      case (.unix, _), (_, .unix): return nil
      default: (self.source, self.destination, size) = (source.widened, destination.widened, 16)
      }
    }
  }
}

extension Address {
  /// As IPv6 without zone, IPv4 mapped.
  fileprivate var widened: Address {
    switch self {
    case .v4(let bits, let port): .v6(high: 0, low: 0xFFFF_0000_0000 | UInt64(bits), port: port, scope: 0)
    case .v6(let high, let low, let port, _): .v6(high: high, low: low, port: port, scope: 0)
    case .unix: self
    }
  }

  /// The address alone in network order; a unix name padded to the 108 bytes of its field.
  fileprivate var octets: [UInt8] {
    var bytes: [UInt8] = []
    switch self {
    case .v4(let bits, _): bytes.append(networkOrder: bits)
    case .v6(let high, let low, _, _):
      bytes.append(networkOrder: high)
      bytes.append(networkOrder: low)
    case .unix(let path):
      // A name that does not fit is left out rather than shortened to another one.
      if path.utf8.count <= Address.longestUnixPath { bytes += path.utf8 }
      if bytes.first == UInt8(ascii: "@") { bytes[0] = 0 }
      bytes += Array(repeating: 0, count: ProxyProtocol.unixField - bytes.count)
    }
    return bytes
  }
}

extension [UInt8] {
  fileprivate mutating func append<Number: FixedWidthInteger>(networkOrder number: Number) {
    for shift in stride(from: Number.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: number >> Number(shift)))
    }
  }
}
