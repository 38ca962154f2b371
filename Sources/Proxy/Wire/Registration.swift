/// What stands in etcd under the key of a proxy that can be found by clients: etcd's naming format, JSON with
/// JSON in it.
struct Registration: Hashable, Sendable {
  /// The proxy says goodbye; no proxy writes this today, but readers are told to take it so.
  var isRemoval = false
  var address: String
  /// The host that the proxy runs on, if it is known.
  var name: String?

  init(address: String, name: String?) {
    self.address = address
    self.name = name
  }

  /// Reads a value written by any etcd proxy or naming client; `nil` without an address. As Go reads it:
  /// whatever the case of the members' names, and of several of one name the last. Metadata that makes no
  /// sense costs the name only.
  init?(_ json: [UInt8]) {
    var removal = false
    var address: String?
    var name: String?
    var reader = JSONReader(json)
    do {
      try reader.object { (member, reader) throws(JSONMalformed) in
        switch (member.lowercased(), reader.peek() ?? 0) {
        case ("op", UInt8(ascii: "0")...UInt8(ascii: "9")):
          removal = try reader.word().elementsEqual([UInt8(ascii: "1")])
        case ("addr", UInt8(ascii: "\"")): address = try reader.string()
        case ("metadata", UInt8(ascii: "\"")): name = Self.name(in: Array(try reader.string().utf8))
        case ("metadata", UInt8(ascii: "{")): name = try Self.name(&reader)
        default: try reader.skip()
        }
      }
    } catch {
      return nil
    }
    guard reader.isAtEnd(), let address, !address.isEmpty else { return nil }
    (self.isRemoval, self.address, self.name) = (removal, address, name)
  }

  private static func name(in metadata: [UInt8]) -> String? {
    var reader = JSONReader(metadata)
    guard let name = try? Self.name(&reader), reader.isAtEnd() else { return nil }
    return name
  }

  private static func name(_ reader: inout JSONReader) throws(JSONMalformed) -> String? {
    var name: String?
    try reader.object { (member, reader) throws(JSONMalformed) in
      if member.lowercased() == "name", reader.peek() == UInt8(ascii: "\"") {
        name = try reader.string()
      } else {
        try reader.skip()
      }
    }
    return name
  }

  /// The value as etcd's proxy writes it, byte for byte.
  var json: [UInt8] {
    let metadata = name.map { Self.quoted("{\"name\":\(Self.quoted($0))}") } ?? "null"
    let members = "\"Op\":\(isRemoval ? 1 : 0),\"Addr\":\(Self.quoted(address)),\"Metadata\":\(metadata)"
    return Array("{\(members)}".utf8)
  }

  /// As Go writes a text: also what means something in HTML becomes an escape.
  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case "\u{08}": result += "\\b"
      case "\u{0C}": result += "\\f"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case "\0"..<" ", "<", ">", "&", "\u{2028}", "\u{2029}":
        result += "\\u" + GoText.hexadecimal(scalar.value, digits: 4)
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
