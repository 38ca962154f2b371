/// Reads the head of an HTTP/1.x request (RFC 9112) for the metrics, health and live pages.
///
/// Strict where leniency lets two readers of the same bytes disagree: CR LF only ends lines, no folded lines, no
/// space before a colon, one length or none. The parser is fed the same buffer, with more bytes each time, until it
/// answers; only what is new is scanned.
public struct RequestParser: Sendable {
  /// What the bytes amount to.
  public enum Verdict: Hashable, Sendable {
    /// The head is not complete.
    case needMore
    /// A head of `length` bytes; a body, if announced, follows.
    case request(RequestHead, length: Int)
    /// To be answered with this status, and the connection closed: 400 malformed, 414 request line or 431 head too
    /// long, 417 unknown expectation, 501 unknown transfer coding, 505 version.
    case error(status: Int)
  }

  /// The longest head, request line and final empty line included, in bytes.
  public static let longestHead = 16 * 1024
  /// The most header lines.
  public static let mostHeaders = 100

  private var scanned = 0
  private var start = 0
  private var lineEnds: [Int] = []

  /// Ready for the first byte of a request.
  public init() {}

  /// Judges the bytes from the start of the request. After `.request` or `.error` take a new parser for what
  /// follows.
  public mutating func parse(_ bytes: RawSpan) -> Verdict {
    while scanned < min(bytes.byteCount, Self.longestHead) {
      switch bytes.octet(scanned) {
      case UInt8(ascii: "\n"):
        // The CR in front was let pass in the case below only because a LF had to follow.
        guard scanned > 0, bytes.octet(scanned - 1) == UInt8(ascii: "\r") else { return .error(status: 400) }
        if endLine() { return head(bytes) }
      case let byte:
        let followsCR = scanned > 0 && bytes.octet(scanned - 1) == UInt8(ascii: "\r")
        let isAllowed =
          byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\t") || (byte >= 0x20 && byte != 0x7F)
        guard isAllowed && !followsCR else { return .error(status: 400) }
      }
      scanned += 1
      if lineEnds.count > Self.mostHeaders + 1 { return .error(status: 431) }
    }
    guard scanned == Self.longestHead else { return .needMore }
    return .error(status: lineEnds.isEmpty ? 414 : 431)
  }

  /// Notes a line that ends with the LF at `scanned`; true if it is the empty one that ends the head.
  private mutating func endLine() -> Bool {
    let begin = lineEnds.last.map { $0 + 1 } ?? start
    guard scanned - begin == 1 else {
      lineEnds.append(scanned)
      return false
    }
    // RFC 9112 section 2.2: an empty line before the request line, left by a careless client, is skipped.
    if lineEnds.isEmpty && start == 0 {
      start = scanned + 1
      return false
    }
    return true
  }

  private func head(_ bytes: RawSpan) -> Verdict {
    guard let first = lineEnds.first else { return .error(status: 400) }
    do throws(RequestHead.Refusal) {
      var head = try RequestHead(requestLine: bytes.octets(start..<first - 1))
      var fields = HeaderFields()
      for (end, next) in zip(lineEnds, lineEnds.dropFirst()) {
        try fields.take(line: bytes.octets(end + 1..<next - 1))
      }
      try head.finish(fields)
      return .request(head, length: scanned + 1)
    } catch {
      return .error(status: error.status)
    }
  }
}
