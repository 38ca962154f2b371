/// What is kept of the header lines while they are read.
struct HeaderFields {
  var hosts: [String] = []
  var accepts: [String] = []
  /// Options of `Connection`, in lower case.
  var connection: [String] = []
  /// Members of `Expect`, in lower case.
  var expectations: [String] = []
  /// Members of `Transfer-Encoding`, in lower case.
  var codings: [String] = []
  var length: UInt64?

  /// Takes one line without its end (RFC 9112 section 5): a token, a colon at once, the value.
  mutating func take(line: [UInt8]) throws(RequestHead.Refusal) {
    guard let colon = line.firstIndex(of: UInt8(ascii: ":")), Self.isToken(line[..<colon]) else {
      throw .malformed
    }
    let value = Self.trimmed(line[(colon + 1)...])
    switch String(decoding: line[..<colon].map(Self.lowercase), as: UTF8.self) {
    case "host":
      guard Self.isHost(value) else { throw .malformed }
      hosts.append(String(decoding: value, as: UTF8.self))
    case "accept": accepts.append(String(decoding: value, as: UTF8.self))
    case "connection": connection += Self.members(value)
    case "expect": expectations += Self.members(value)
    case "transfer-encoding":
      let members = Self.members(value)
      guard !members.isEmpty else { throw .malformed }
      codings += members
    case "content-length": try take(length: value)
    default: break
    }
  }

  /// RFC 9112 section 6.3: lengths that differ are an attack; a list is not taken even if its members agree.
  private mutating func take(length value: ArraySlice<UInt8>) throws(RequestHead.Refusal) {
    let isDigits = value.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
    guard isDigits, let number = UInt64(String(decoding: value, as: UTF8.self)) else { throw .malformed }
    guard length == nil || length == number else { throw .malformed }
    length = number
  }

  // MARK: Grammar

  /// RFC 9110 section 5.6.2.
  static func isToken(_ bytes: ArraySlice<UInt8>) -> Bool {
    !bytes.isEmpty
      && bytes.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
        case UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: tokenMarks.contains(byte)
        }
      }
  }

  private static let tokenMarks = Array("!#$%&'*+-.^_`|~".utf8)

  /// The characters of a host with port (RFC 3986 section 3.2), without user information; may be empty.
  static func isHost(_ bytes: ArraySlice<UInt8>) -> Bool {
    bytes.allSatisfy { $0 > 0x20 && $0 < 0x7F && !hostStops.contains($0) }
  }

  private static let hostStops = Array("/?#@\\\"<>^`{|},".utf8)

  static func lowercase(_ byte: UInt8) -> UInt8 {
    byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
  }

  private static func isBlank(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t")
  }

  private static func trimmed(_ value: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    let front = value.drop(while: isBlank)
    let last = front.lastIndex { !isBlank($0) }
    return last.map { front[...$0] } ?? []
  }

  /// RFC 9110 section 5.6.1: members between commas, empty ones left out, in lower case.
  private static func members(_ value: ArraySlice<UInt8>) -> [String] {
    value.split(separator: UInt8(ascii: ",")).map { trimmed($0) }.filter { !$0.isEmpty }
      .map { String(decoding: $0.map(lowercase), as: UTF8.self) }
  }
}
