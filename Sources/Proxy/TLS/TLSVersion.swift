/// The protocol versions there are, by the names etcd's flags have for them.
enum TLSVersion: String, Hashable, Sendable, Comparable, CaseIterable {
  case tls12 = "TLS1.2"
  case tls13 = "TLS1.3"

  /// Reads a flag; nil for an empty one, which leaves the choice to the program.
  static func flag(_ text: String) throws(TLSFailure) -> TLSVersion? {
    if text.isEmpty { return nil }
    if let version = TLSVersion(rawValue: text) { return version }
    let names = allCases.map(\.rawValue).joined(separator: ", ")
    throw TLSFailure("unexpected TLS version \(GoText.quoted(text)) (must be one of: \(names))")
  }

  static func < (left: TLSVersion, right: TLSVersion) -> Bool { left == .tls12 && right == .tls13 }
}
