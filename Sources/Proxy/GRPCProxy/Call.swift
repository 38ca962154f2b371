internal import Reactor

/// One gRPC call: a stream of a client's connection, and the stream to etcd that serves it.
///
/// Bytes that one side does not take at once wait in `request` and `response`; the other side's flow-control credit
/// returns only as they leave, so that both are bounded by a stream's window.
struct Call: ~Copyable {
  enum Phase {
    /// No stream to etcd yet, or not any more: waits for a connection.
    case waiting
    /// A stream to etcd is open.
    case open
    /// etcd has answered in full; the rest of the answer waits for the client's window.
    case finishing
  }

  let client: Handle
  let stream: UInt32
  /// The client's socket, for the log.
  var descriptor: Int32 = -1
  let method: EtcdMethod
  let started: Instant
  var phase = Phase.waiting
  var deadline = Instant.distantFuture
  var timer = TimerWheel.Timer.none

  var upstream: Handle?
  var upstreamStream: UInt32 = 0
  /// Endpoints that have had the call and failed.
  var tried = EndpointSet()
  var tries: UInt8 = 0

  /// The request's header fields in the form of `HeaderRecord`, for as long as it may have to be sent (again).
  var head: ByteBuffer
  /// What the client has sent: from the first byte while `isRepeatable`, else only what has not been passed on.
  var request: ByteBuffer
  /// Bytes of `request` that etcd's connection has taken.
  var passed = 0
  /// Bytes of `request` whose credit has gone back to the client; they are sent once more when a call is repeated.
  var creditedRequest = 0
  /// The bytes of `request` are all of it, so that the call can be made anew.
  var isRepeatable = true
  /// The client has ended its side.
  var clientEnded = false
  /// So have we towards etcd.
  var requestEnded = false

  /// What etcd has answered and the client's window has not let through.
  var response: ByteBuffer
  /// The trailers, while some of the answer still waits.
  var tail: ByteBuffer
  /// The response's header fields have gone to the client.
  var headSent = false

  /// No call at all but a page that does not fit the client's window.
  var isPage = false
  /// The user that Authenticate names.
  var user: [UInt8] = []
  /// The revision that Compact names.
  var compactRevision: Int64 = 0
  /// Answers the client in etcd's place.
  var session: ClientSession?
  /// No client's but the proxy's.
  var own: OwnCall?

  /// Where the messages begin and end, for the limits on their size.
  var requestFrames = MessageFramer()
  var responseFrames = MessageFramer()
  /// The answer's head is held back until its revision is known, and answers thrown away for theirs.
  var isOrdered = false
  var staleAnswers = 0
  /// The lease that is being looked up, and the one that may be used (`--namespace-strict`).
  var awaitedLease: Int64 = 0
  var clearedLease: Int64 = 0
  /// Messages are rewritten on their way, so they are collected first.
  var rewrites = false
  /// So are messages whose revision is looked at.
  var isCollected: Bool { rewrites || isOrdered }
  /// Bytes taken in for it whose credit waits, because much of what was made of them has not left: the
  /// client's and etcd's.
  var owedRequest = 0
  var owedAnswer = 0
  var inbox: ByteBuffer
  var outbox: ByteBuffer

  /// What the cache has to do with it.
  var read = ReadState()
  /// The revision in the header of the answer that came last, once it is known.
  var peek = RevisionPeek()
  var answered: Int64 = -1
  /// Keys that the request writes, in the form of `WrittenKeys`, until etcd has said whether it did.
  var written: ByteBuffer
  var isWriteNoted = false

  /// Bytes kept for it that wait for one of the two sides.
  var heldBytes: Int { request.count + response.count + inbox.count + (session?.heldBytes ?? 0) }

  init(client: Handle, stream: UInt32, method: EtcdMethod, now: Instant, _ pool: BlockPool) {
    self.client = client
    self.stream = stream
    self.method = method
    started = now
    head = ByteBuffer(pool)
    request = ByteBuffer(pool)
    response = ByteBuffer(pool)
    tail = ByteBuffer(pool)
    inbox = ByteBuffer(pool)
    outbox = ByteBuffer(pool)
    written = ByteBuffer(pool)
  }
}
