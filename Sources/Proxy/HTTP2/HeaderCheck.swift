/// What a header block is, which decides over the rules for it.
enum HeaderBlock {
  case request, response, trailers
  /// Of a stream that nobody is interested in any more: decoded only to keep the compression in step.
  case discarded
}

/// The rules for the fields of one message (RFC 9113 section 8), applied field by field.
struct HeaderCheck {
  let block: HeaderBlock
  private(set) var isMalformed = false
  /// What the peer says it will send; -1 when it says nothing.
  private(set) var contentLength: Int64 = -1
  /// Of a response.
  private(set) var status = 0

  private var seen: UInt64 = 0
  private var regularSeen = false
  private var isConnect = false
  private var isOptions = false
  private var pathStart = PathStart.other

  private enum PathStart { case slash, asterisk, other }

  init(_ block: HeaderBlock) { self.block = block }

  /// Looks at the next field.
  mutating func take(_ kind: HeaderKind, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
    guard !isMalformed, block != .discarded else { return }
    let isGood = unsafe kind.isPseudo ? takePseudo(kind, value) : takeRegular(kind, name, value)
    if !isGood { isMalformed = true }
  }

  /// Looks at the block as a whole.
  mutating func finish() {
    switch block {
    case .request:
      if !isCompleteRequest { isMalformed = true }
    case .response:
      // 101 belongs to HTTP/1.1 only (RFC 9113 section 8.6).
      if !has(.status) || status == 101 { isMalformed = true }
    case .trailers, .discarded: break
    }
  }

  private var isCompleteRequest: Bool {
    if isConnect { return has(.authority) && !has(.scheme) && !has(.path) }
    guard has(.method), has(.scheme), has(.path) else { return false }
    switch pathStart {
    case .slash: return true
    case .asterisk: return isOptions
    case .other: return false
    }
  }

  private func has(_ kind: HeaderKind) -> Bool { seen & 1 << UInt64(kind.rawValue) != 0 }

  /// Notes a field that may be there once; false when it was there.
  private mutating func isFirst(_ kind: HeaderKind) -> Bool {
    guard !has(kind) else { return false }
    seen |= 1 << UInt64(kind.rawValue)
    return true
  }

  private mutating func takePseudo(_ kind: HeaderKind, _ value: UnsafeRawBufferPointer) -> Bool {
    guard !regularSeen, isFirst(kind), unsafe Grammar.isValue(value) else { return false }
    switch (block, kind) {
    case (.request, .method):
      unsafe isConnect = value.isEqual(to: "CONNECT")
      unsafe isOptions = value.isEqual(to: "OPTIONS")
      return unsafe Grammar.isToken(value)
    case (.request, .scheme): return unsafe Grammar.isScheme(value)
    // Clients of etcd 3.5 send "#initially=[http://…]": what is no authority by its grammar must pass.
    case (.request, .authority): return unsafe value.allSatisfy { $0 > 0x20 && $0 < 0x7F }
    case (.request, .path):
      if unsafe value.first == UInt8(ascii: "/") {
        pathStart = .slash
      } else if unsafe value.isEqual(to: "*") {
        pathStart = .asterisk
      }
      return unsafe Grammar.isVisible(value)
    case (.response, .status): return unsafe takeStatus(value)
    default: return false
    }
  }

  private mutating func takeStatus(_ value: UnsafeRawBufferPointer) -> Bool {
    guard let number = unsafe Grammar.number(value), value.count == 3, number >= 100 else {
      return false
    }
    status = Int(number)
    return true
  }

  private mutating func takeRegular(
    _ kind: HeaderKind, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer
  ) -> Bool {
    regularSeen = true
    guard unsafe Grammar.isName(name), unsafe Grammar.isValue(value) else { return false }
    switch kind {
    case .connectionSpecific: return false
    case .te: return unsafe Grammar.isTrailers(value)
    case .host: return isFirst(.host)
    case .contentLength where block != .trailers:
      guard isFirst(.contentLength), let number = unsafe Grammar.number(value) else { return false }
      contentLength = number
      return true
    default: return true
    }
  }
}

/// What names and values may consist of (RFC 9110 section 5, RFC 9113 section 8.2.1).
enum Grammar {
  /// Token characters, capital letters among them, as a set of the 128 ASCII codes.
  private static let token: (UInt64, UInt64) = (0x03FF_6CFA_0000_0000, 0x57FF_FFFF_C7FF_FFFE)
  private static let capitals: UInt64 = 0x07FF_FFFE
  private static let alpha: UInt64 = 0x07FF_FFFE_07FF_FFFE
  /// Digits, plus, minus, dot.
  private static let schemeMarks: UInt64 = 0x03FF_6800_0000_0000

  /// A field name: a token in lower case.
  static func isName(_ bytes: UnsafeRawBufferPointer) -> Bool {
    unsafe bytes.count > 0 && bytes.allSatisfy { contains(token.0, token.1 & ~capitals, $0) }
  }

  static func isToken(_ bytes: UnsafeRawBufferPointer) -> Bool {
    unsafe bytes.count > 0 && bytes.allSatisfy { contains(token.0, token.1, $0) }
  }

  /// RFC 3986 section 3.1.
  static func isScheme(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let first = unsafe bytes.first, contains(0, alpha, first) else { return false }
    return unsafe bytes.allSatisfy { contains(schemeMarks, alpha, $0) }
  }

  private static func contains(_ low: UInt64, _ high: UInt64, _ byte: UInt8) -> Bool {
    guard byte < 128 else { return false }
    return (byte < 64 ? low : high) >> UInt64(byte & 63) & 1 == 1
  }

  /// A field value: no control characters but the tab, no blank at either end.
  static func isValue(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let first = unsafe bytes.first, let last = unsafe bytes.last else { return true }
    guard !isBlank(first), !isBlank(last) else { return false }
    return unsafe bytes.allSatisfy { $0 >= 0x20 && $0 != 0x7F || $0 == 9 }
  }

  /// No blanks and no control characters, as in a path or an authority.
  static func isVisible(_ bytes: UnsafeRawBufferPointer) -> Bool {
    unsafe bytes.allSatisfy { $0 > 0x20 && $0 != 0x7F }
  }

  /// The one value of `te` that HTTP/2 knows.
  static func isTrailers(_ value: UnsafeRawBufferPointer) -> Bool {
    let text = unsafe UnsafeRawBufferPointer("trailers" as StaticString)
    guard value.count == text.count else { return false }
    for position in 0..<text.count where unsafe value[position] | 0x20 != text[position] { return false }
    return true
  }

  /// A decimal number without sign, as in `content-length`.
  static func number(_ bytes: UnsafeRawBufferPointer) -> Int64? {
    guard bytes.count > 0, bytes.count <= 18 else { return nil }
    var result: Int64 = 0
    for position in 0..<bytes.count {
      let byte = unsafe bytes[position]
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { return nil }
      result = result &* 10 &+ Int64(byte &- UInt8(ascii: "0"))
    }
    return result
  }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 9 }
}
