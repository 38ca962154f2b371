/// Which end of the connection we are: the server of our clients, the client of etcd.
enum HTTP2Role: Sendable { case server, client }

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).
enum HTTP2Code: UInt32, Sendable {
  case noError = 0, protocolError, internalError, flowControlError, settingsTimeout, streamClosed
  case frameSizeError, refusedStream, cancel, compressionError, connectError, enhanceYourCalm
  case inadequateSecurity, http11Required

  /// The name in RFC 9113, as Go's library writes it.
  var name: String {
    switch self {
    case .noError: "NO_ERROR"
    case .protocolError: "PROTOCOL_ERROR"
    case .internalError: "INTERNAL_ERROR"
    case .flowControlError: "FLOW_CONTROL_ERROR"
    case .settingsTimeout: "SETTINGS_TIMEOUT"
    case .streamClosed: "STREAM_CLOSED"
    case .frameSizeError: "FRAME_SIZE_ERROR"
    case .refusedStream: "REFUSED_STREAM"
    case .cancel: "CANCEL"
    case .compressionError: "COMPRESSION_ERROR"
    case .connectError: "CONNECT_ERROR"
    case .enhanceYourCalm: "ENHANCE_YOUR_CALM"
    case .inadequateSecurity: "INADEQUATE_SECURITY"
    case .http11Required: "HTTP_1_1_REQUIRED"
    }
  }

  /// The meaning of a received number. Unknown ones must not have a special effect (RFC 9113 section 7).
  init(received number: UInt32) { self = HTTP2Code(rawValue: number) ?? .internalError }
}
