/// The first record of a CSV text by the rules of Go's `encoding/csv`, which etcd's list flags use: fields between
/// commas, `"…"` around fields with commas, `""` for a quote inside of them, blank lines before the record skipped,
/// everything after the record's line ignored.
struct CSVRecord {
  private let bytes: [UInt8]
  private var position = 0
  private var line = 1
  /// Column of `position`, in bytes from 1.
  private var column = 1
  private var startLine = 1

  /// The fields of the first record. Throws Go's text for a misplaced quote; `EOF` for a text of line ends only.
  static func fields(_ text: String) throws(OptionError) -> [String] {
    var record = CSVRecord(text)
    return try record.parse()
  }

  private init(_ text: String) {
    var bytes: [UInt8] = []
    let source = Array(text.utf8)
    for (index, byte) in source.enumerated() {
      let next = index + 1 < source.count ? source[index + 1] : Ascii.newline
      // Go turns CR LF into LF and drops a CR that ends the text.
      if byte == Ascii.carriageReturn, next == Ascii.newline { continue }
      bytes.append(byte)
    }
    self.bytes = bytes
  }

  private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

  private mutating func advance() {
    let endsLine = current == Ascii.newline && position + 1 < bytes.count
    position += 1
    column += 1
    if endsLine {
      line += 1
      column = 1
    }
  }

  private mutating func parse() throws(OptionError) -> [String] {
    while current == Ascii.newline { advance() }
    guard current != nil else { throw OptionError("EOF") }
    startLine = line
    var fields: [String] = []
    while true {
      fields.append(current == Ascii.quote ? try quotedField() : try plainField())
      guard current == Ascii.comma else { return fields }
      advance()
    }
  }

  private mutating func plainField() throws(OptionError) -> String {
    let start = position
    while let byte = current, byte != Ascii.comma, byte != Ascii.newline {
      if byte == Ascii.quote { throw fault("bare \" in non-quoted-field") }
      advance()
    }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }

  private mutating func quotedField() throws(OptionError) -> String {
    var field: [UInt8] = []
    advance()
    while let byte = current {
      guard byte == Ascii.quote else {
        field.append(byte)
        advance()
        continue
      }
      let atQuote = self
      advance()
      switch current {
      case Ascii.quote:
        field.append(Ascii.quote)
        advance()
      case nil, Ascii.comma, Ascii.newline: return String(decoding: field, as: UTF8.self)
      default: throw atQuote.fault(CSVRecord.misplaced)
      }
    }
    throw fault(CSVRecord.misplaced)
  }

  private static let misplaced = "extraneous or missing \" in quoted-field"

  private func fault(_ reason: String) -> OptionError {
    let place = "parse error on line \(line), column \(column): \(reason)"
    return OptionError(line == startLine ? place : "record on line \(startLine); \(place)")
  }
}
