/// When something that was read from a file stops being valid, for metrics and the log.
struct TLSExpiry: Hashable, Sendable {
  /// What it is.
  enum Kind: String, Hashable, Sendable {
    /// What this process shows.
    case certificate
    /// The first of the authorities to expire.
    case authority
    /// The next update of a revocation list is due; it stays in force.
    case revocationList = "crl"
  }

  let kind: Kind
  let file: String
  /// Seconds since 1970.
  let seconds: Int64

  /// The one of its kind and file that comes first.
  static func note(_ expiry: TLSExpiry, in list: inout [TLSExpiry]) {
    guard let index = list.firstIndex(where: { $0.kind == expiry.kind && $0.file == expiry.file }) else {
      return list.append(expiry)
    }
    if expiry.seconds < list[index].seconds { list[index] = expiry }
  }
}
