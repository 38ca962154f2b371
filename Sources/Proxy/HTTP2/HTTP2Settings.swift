internal import Reactor

/// What one side of the proxy allows its peers; one value for all connections of that side.
struct HTTP2Settings: Sendable {
  /// Server: streams that a client may have open. `UInt32.max` announces no limit.
  var maxConcurrentStreams: UInt32
  /// Receive window that a stream begins with.
  var streamWindow: Int
  /// A stream's receive window doubles up to this while its bytes are credited without delay.
  var maxStreamWindow: Int
  /// Receive window of the connection, at least 65,535. It is credited when DATA arrives: streams bound the memory.
  var connectionWindow: Int
  /// Size of a decoded header list, each field with 32 bytes on top (RFC 9113 section 6.5.2).
  var maxHeaderListBytes: Int
  /// Server: pings closer together count as abuse, as in grpc-go.
  var pingMinimum: Instant.Span
  /// Server: the same holds for clients without streams; else those may ping once in two hours.
  var pingsWithoutStream: Bool

  /// The initial window of RFC 9113, in force until SETTINGS are acknowledged.
  static let standardWindow: Int32 = 65_535
}
