/// The first bytes of a client, kept until the endpoint answers for the first time, so that a connection whose endpoint
/// dies or hangs before that can move to another one unnoticed.
///
/// Only bytes that cannot have had an effect are ever sent twice: a TLS greeting, an HTTP/2 preface with connection-level
/// frames, or an HTTP/1.x request whose method is safe (RFC 9110, section 9.2.1). At the first byte beyond that, or past
/// one receive buffer, the connection is bound to its endpoint.
struct Replay {
  /// More than any greeting needs; a client that sends more before the first answer is not greeting.
  static let most = 4096

  /// What goes first: our PROXY header, which is not the client's.
  private let prefix: [UInt8]
  private var bytes: [UInt8] = []
  private var isBound = false

  init(prefix: [UInt8], first: [UInt8]) {
    self.prefix = prefix
    unsafe take(first.span.bytes)
  }

  /// True while everything may be sent again.
  var isSafe: Bool { !isBound }

  /// All that has to be sent to a new endpoint.
  var all: [UInt8] { prefix + bytes }

  /// Bytes in `all`.
  var count: Int { prefix.count + bytes.count }

  /// The client sent more.
  mutating func take(_ received: RawSpan) {
    guard !isBound else { return }
    guard bytes.count + received.byteCount <= Self.most else { return bind() }
    for index in 0..<received.byteCount { bytes.append(received.octet(index)) }
    if !Self.hasNoEffect(bytes) { bind() }
  }

  private mutating func bind() {
    isBound = true
    bytes = []
  }

  /// Whether a server that got exactly these bytes from a new connection cannot have done anything for them.
  static func hasNoEffect(_ bytes: [UInt8]) -> Bool {
    guard let first = bytes.first else { return true }
    if first == Greeting.handshakeRecord { return isGreeting(bytes) }
    let preface = Greeting.http2Preface
    if bytes.starts(with: preface.prefix(bytes.count)) {
      return bytes.count <= preface.count || hasOnlyConnectionFrames(bytes[preface.count...])
    }
    return HTTP1.safeMethods.contains { bytes.starts(with: $0.prefix(bytes.count)) }
      && HTTP1.isOneRequest(bytes)
  }

  private static let recordHeader = 5

  /// TLS records of type handshake only (RFC 8446, section 5.1): a client that also sends early data (0-RTT) has asked
  /// for something already.
  private static func isGreeting(_ bytes: [UInt8]) -> Bool {
    var start = 0
    while start < bytes.count {
      guard bytes[start] == Greeting.handshakeRecord else { return false }
      guard start + recordHeader <= bytes.count else { return true }
      start += recordHeader + Int(bytes[start + 3]) << 8 + Int(bytes[start + 4])
    }
    return true
  }

  private enum HTTP2 {
    static let frameHeader = 9
    /// PRIORITY, SETTINGS, PING, WINDOW_UPDATE (RFC 9113, section 6): none of them opens a stream.
    static let connectionFrames: Set<UInt8> = [2, 4, 6, 8]
  }

  private static func hasOnlyConnectionFrames(_ bytes: ArraySlice<UInt8>) -> Bool {
    var start = bytes.startIndex
    while start + HTTP2.frameHeader <= bytes.endIndex {
      guard HTTP2.connectionFrames.contains(bytes[start + 3]) else { return false }
      let length = Int(bytes[start]) << 16 + Int(bytes[start + 1]) << 8 + Int(bytes[start + 2])
      start += HTTP2.frameHeader + length
    }
    // A frame whose header is not complete cannot have been understood.
    return true
  }

  private enum HTTP1 {
    /// Nothing stands behind the first head: it could be another request, of another kind.
    static func isOneRequest(_ bytes: [UInt8]) -> Bool {
      let end: [UInt8] = [13, 10, 13, 10]
      for start in 0..<max(0, bytes.count - end.count)
      where bytes[start..<start + end.count].elementsEqual(end) {
        return false
      }
      return true
    }

    static let safeMethods = ["GET ", "HEAD ", "OPTIONS "].map { Array($0.utf8) }
  }
}
