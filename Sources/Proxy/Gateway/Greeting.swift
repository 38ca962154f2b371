/// What the first bytes of a connection say about the protocol.
enum Greeting {
  static let http2Preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
  /// The content type of a TLS handshake record (RFC 8446, section 5.1), with which every TLS stream begins.
  static let handshakeRecord: UInt8 = 22
  private static let methods = ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH "].map {
    Array($0.utf8)
  }

  /// The protocol, if the bytes leave no doubt.
  static func spoken(_ bytes: RawSpan) -> EndpointBoard.Spoken {
    guard bytes.byteCount >= 3 else { return .unknown }
    if bytes.octet(0) == handshakeRecord, bytes.octet(1) == 3 { return .tls }
    let isHTTP = begins(bytes, http2Preface) || methods.contains { begins(bytes, $0) }
    return isHTTP ? .http : .unknown
  }

  private static func begins(_ bytes: RawSpan, _ mark: [UInt8]) -> Bool {
    bytes.byteCount >= mark.count && mark.indices.allSatisfy { bytes.octet($0) == mark[$0] }
  }
}
