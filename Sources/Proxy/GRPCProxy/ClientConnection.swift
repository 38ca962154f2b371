internal import Reactor

/// A client's connection on its core.
struct ClientConnection: ~Copyable {
  enum Phase {
    /// TLS is being negotiated, or the first bytes have not told yet what the client speaks.
    case greeting
    /// HTTP/2: calls.
    case http2
    /// HTTP/1.1: pages.
    case http1
    /// Nothing new is taken; what waits is sent, then it ends.
    case closing
    /// Ended; operations are called back.
    case ended
  }

  /// What a client's HTTP/1.1 requests need; most clients have none of it.
  final class Visitor {
    var parser = RequestParser()
    var writer = ResponseWriter()
    /// A page is being made; the next request waits.
    var isAnswering = false
    var unread: [UInt8] = []
    /// Since when there has been nothing to do but wait for the rest of a request, or for the next one.
    var idleSince: Instant

    init(now: Instant) { idleSince = now }
  }

  var transport: Transport
  var phase = Phase.greeting
  /// For the limit on connections of one source, and for logs.
  let source: Address?
  let opened: Instant
  /// It came through `--metrics-addr`, where there are pages and no calls.
  let isForPages: Bool
  var visitor: Visitor?
  /// When the client last took something that was sent.
  var progressed: Instant
  /// When the client's silence was last asked about (`--grpc-keepalive-interval`), and whether it has answered.
  var pinged: Instant?
  /// The newest revision in what it has been answered: it is shown nothing that is older.
  var shown: Int64 = 0
  /// Calls open on it.
  var calls = 0
  var isTouched = false
  /// It leaves too much unread to be given more.
  var isHoarding = false
  /// GOAWAY has been sent for the last time: it ends with its last call.
  var isDraining = false
  /// The end of the client's stream has been read, or its socket has failed.
  var peerEnded = false

  /// It ends as soon as all that waits has been sent.
  var isDone: Bool { phase == .closing || isDraining && calls == 0 }

  init(_ transport: consuming Transport, source: Address?, opened: Instant, isForPages: Bool) {
    self.transport = transport
    self.source = source
    self.opened = opened
    self.isForPages = isForPages
    progressed = opened
  }
}
