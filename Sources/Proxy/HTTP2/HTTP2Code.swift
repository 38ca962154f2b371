/// Which end of the connection we are: the server of our clients, the client of etcd.
enum HTTP2Role: Sendable { case server, client }

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).
enum HTTP2Code: UInt32, Sendable {
  case noError = 0, protocolError, internalError, flowControlError, settingsTimeout, streamClosed
  case frameSizeError, refusedStream, cancel, compressionError, connectError, enhanceYourCalm
  case inadequateSecurity, http11Required

  /// The meaning of a received number. Unknown ones must not have a special effect (RFC 9113 section 7).
  init(received number: UInt32) { self = HTTP2Code(rawValue: number) ?? .internalError }
}
