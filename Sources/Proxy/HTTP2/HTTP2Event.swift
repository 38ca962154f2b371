internal import Reactor

/// What a connection tells its owner, one at a time.
@safe enum HTTP2Event {
  /// A request (server) or the head of a response (client). The fields are in the context's `received` until `next`.
  case headers(stream: UInt32, user: Handle?, endStream: Bool)
  /// The fields behind the data, likewise in `received`; they end the peer's side.
  case trailers(stream: UInt32, user: Handle?)
  /// Bytes that are good until `next`. Give them back with `credit` when they have been passed on.
  case data(stream: UInt32, user: Handle?, bytes: UnsafeRawBufferPointer, endStream: Bool)
  /// The stream is gone: the peer reset it, or broke the protocol on it and was told so.
  case reset(stream: UInt32, user: Handle?, HTTP2Code)
  /// A stream that refused bytes takes some now.
  case writable(stream: UInt32, user: Handle?)
  /// The peer's settings changed; with them may have `canOpen`.
  case settings
  /// The peer will not take new streams. Those above `last` follow as `unprocessed`.
  case goAway(last: UInt32, HTTP2Code)
  /// Client: the stream is gone, and the server has certainly not acted on it.
  case unprocessed(stream: UInt32, user: Handle?)
  /// The answer to `ping`.
  case pong(UInt64)
  /// The connection is over, with all streams, which `forEachUser` names until the next call of `next`; a GOAWAY is in
  /// the output. The last event.
  case failed(HTTP2Code, StaticString)
}
