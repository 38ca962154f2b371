internal import Reactor

/// Every cap of the proxy in one place, and how caps relate (`check`). Flags may lower some, never lift one.
public enum Limits {
  // Receiving.
  /// Receive buffers a core and bytes in each: 1 MiB in all, since a larger pool is always cold in the cache.
  static let receiveBuffers = 256
  static let receiveBufferSize = 4096

  // Connections.
  /// Connections a core keeps, beyond which it refuses; memory is only used for those there are.
  static let connectionsACore = 1 << 20
  /// Pending connections that the kernel queues for a listener.
  static let listenBacklog: Int32 = 4096
  /// How often, and with which pause, an address in use is tried: a second in all.
  static let bindTries = 20
  static let bindPauseMicroseconds: UInt32 = 50_000
  /// Longest PROXY protocol header that is waited for, and for how long.
  static let proxyHeaderBytes = 16 + 4096
  static let proxyHeaderMilliseconds: UInt64 = 5000
  /// Until a session looks again for a descriptor to connect with, unless one comes free before.
  static let descriptorPauseMilliseconds: UInt64 = 50
  /// Distinct sources counted for `--max-connections-per-source`; past it a new source is refused.
  static let countedSources = 1 << 17

  // Splicing.
  /// Pipes a core makes at most, and keeps when they are idle. Two descriptors each.
  static let pipesACore = 512
  static let idlePipesACore = 32
  static let pipeCapacity: Int32 = 1 << 20
  static let pipeCapacityLeast: Int32 = 64 << 10

  /// Descriptors kept for listeners, logs, DNS, probes, the metrics page and pipes.
  static let descriptorsForOthers = 256
  /// Receive buffers of the control thread, which reads hardly anything.
  static let controlBuffers = 16

  // Endpoints.
  /// Endpoints at most; a connection remembers which it tried in a set of this many bits.
  static let endpoints = 128
  static let addressesAnEndpoint = 16

  // Options.
  /// Threads that may be asked for.
  static let threads = 1024
  /// Shortest time between two probes of an endpoint, and between two looks at etcd's member list.
  static let leastProbeMilliseconds: Int64 = 10
  static let leastAutoSyncMilliseconds: Int64 = 100
  /// Longest life of a certificate of our own making, in years; dates of certificates have four digits for the year.
  static let certificateYears: UInt = 1000

  // Messages.
  /// Transactions inside transactions that a namespace looks into, and groups inside groups that are stepped over.
  static let nestedTransactions = 32
  static let protobufGroups = 16
  /// Objects and lists inside each other in the JSON of a registration.
  static let nestedJSON = 16

  // HTTP/2.
  /// Longest frame that is taken and sent, which is also the least that a peer has to take.
  static let http2FrameBytes = 16 << 10
  /// Compressed header block, at least; otherwise twice the decoded size that is announced.
  static let http2HeaderBlockBytes = 64 << 10
  /// CONTINUATION frames of one header block.
  static let http2Continuations = 32
  /// Bytes waiting for the socket beyond which no DATA is taken.
  static let http2OutputBytes = 256 << 10
  /// Bytes waiting for the socket that only answer the peer (acknowledgements, resets it provoked).
  static let http2AnswerBytes = 16 << 10
  /// Frames that lead nowhere: pings, settings, empty DATA, unknown types, frames on closed streams. A client of
  /// grpc-go that measures bandwidth over loopback sends a few thousand pings a second.
  static let http2NoiseBurst: UInt64 = 20_000
  static let http2NoisePerSecond: UInt64 = 10_000
  /// What one SETTINGS frame counts for, since it may touch every stream.
  static let http2SettingsNoise: UInt64 = 100
  /// Streams that the peer of a server opens only to have them reset. One outage ends every call of a client at once.
  static let http2ResetBurst: UInt64 = 10_000
  static let http2ResetsPerSecond: UInt64 = 1000
  /// Pings ahead of time that are forgiven.
  static let http2PingStrikes = 2
  /// Streams a client opens before it knows what the server allows.
  static let http2StreamsBeforeSettings: UInt32 = 100
  /// Largest receive window, so that the sum of two is still a window.
  static let http2Window = 1 << 30

  // TLS.
  /// Bytes of a file with certificates, keys or revocation lists.
  static let tlsFileBytes = 64 << 20
  /// Bytes of the other end until its handshake must be complete: OpenSSL's largest certificate list with room.
  static let tlsHandshakeBytes = 256 << 10
  /// Room for one's own part of a handshake; more is made when a chain of certificates is long.
  static let tlsFlightBytes = 4096
  /// Plain bytes of a record, and by how much it can be longer (RFC 5246 section 6.2.3), alert included.
  static let tlsRecordBytes = 16 << 10
  static let tlsRecordOverhead = 256
  /// A self-signed certificate is renewed so long before it expires.
  static let selfSignedRenewalDays: Int64 = 30

  /// Tokens and users whose principals are remembered.
  static let principals = 1 << 18
  /// Tokens that a core finds again without asking.
  static let tokensACore = 4096

  // Watches.
  /// Watchers a core has, and what a home core tells the others that they have not read yet.
  static let watchersACore = 1 << 22
  static let watchNotices = 4096
  /// What etcd has said of a token or a permission is believed for so long.
  static let authMemory = Instant.Span.seconds(1)
  /// Tokens of one principal that a group may try.
  static let watchTokens = 8
  /// Creates on one stream that etcd has not answered, and requests of a client's stream that wait.
  static let watchCreatesUnderWay = 1000
  static let watchStepsWaiting = 10_000
  /// Bytes of one request, as much as etcd takes.
  static let watchRequestBytes = (3 << 19) + (512 << 10)
  /// Bytes that a client's stream is owed and does not read, beyond which its requests have to wait.
  static let watchControlBytes = 256 << 10
  /// How often the watches of a core are gone through in a turn, before others have theirs.
  static let watchRoundsATurn = 64
  /// Blocks that one watcher is given before the next one of its stream has its turn.
  static let watchBlocksATurn = 16
  /// Bytes of blocks that a group keeps for those who are behind or come back, and for how long.
  static let historyBytesAGroup = 4 << 20
  static let historyAge = Instant.Span.seconds(300)
  /// Bytes of all histories of a core, beyond which each group keeps its share only, but this much at least.
  static let historyBytesACore = 512 << 20
  static let leastHistoryBytes = 64 << 10
  /// Bytes that a watch which brings the past may be ahead of its fastest watcher, before etcd is asked to wait.
  static let catchUpBytes = 4 << 20
  /// A group without watchers is kept for those who come back: their connections broke. One that was cancelled is not wanted again.
  static let groupGrace = Instant.Span.seconds(3)
  static let groupGraceAfterCancel = Instant.Span.milliseconds(100)
  /// Revisions of the past that a group begins with when its first watcher wants them.
  static let watchHeadStart: Int64 = 1000
  /// A prefix whose cover etcd has refused is not covered again for so long.
  static let coverPause = Instant.Span.seconds(300)
  /// How often the watches under a cover are told how far it is, if etcd does not say so.
  static let coverProgress = Instant.Span.seconds(60)
  /// A prefix that the proxy covers of its own accord may bring so many events a second that nobody watches, and so many times those
  /// that somebody does, whichever is more.
  static let coverUnwanted = 1000
  static let coverUnwantedShare = 4
  /// How long a cover that has become nobody's is kept, and its prefix is then left alone.
  static let coverRest = Instant.Span.seconds(30)
  /// Until the next prefix is looked for, and how many groups change over in a turn.
  static let coverSettling = Instant.Span.seconds(10)
  static let coverMovesATurn = 5000
  /// etcd is asked for progress again when it does not answer.
  static let progressReminder = Instant.Span.milliseconds(250)
  /// States of a stream of which it is remembered that etcd was asked for progress then.
  static let watchQuestions = 64

  // Between cores.
  /// Messages from one core to another that wait to be read.
  static let coreMail = 256

  // The gRPC proxy.
  /// Receive buffers a core and bytes in each: fewer and larger ones than the gateway's, since a turn's worth of many calls
  /// arrives in one piece.
  static let proxyReceiveBuffers = 64
  static let proxyReceiveBufferSize = 16 << 10
  /// Connections of a core to all endpoints, and to one endpoint for one purpose when its streams run out.
  static let upstreamsACore = 1024
  static let connectionsAnEndpoint = 8
  /// Calls a core carries at a time.
  static let callsACore = 1 << 20
  /// Bytes that calls and connections of a core hold, beyond which new calls are refused.
  static let bufferedBytesACore = 1 << 30
  /// Bytes that the calls of one client hold because it does not read, or sends what cannot be passed on:
  /// beyond the first it is refused new calls, beyond the second its connection is ended.
  static let bufferedBytesAClient = 64 << 20
  static let bufferedBytesAClientAtMost = 256 << 20
  /// So much that cores have freed goes back to the system, and so often at most.
  static let freedBytes = 1 << 20
  static let freeingPause = Instant.Span.seconds(5)
  /// A request that is longer is passed on as it comes and cannot be made again.
  static let repeatableRequestBytes = 64 << 10
  /// Streams to etcd that a call may use up.
  static let triesACall: UInt8 = 10
  /// Receive windows: a stream's at first, its largest, and a connection's, which is credited at once.
  static let clientStreamWindow = 64 << 10
  static let upstreamStreamWindow = 256 << 10
  static let largestStreamWindow = 1 << 20
  static let connectionWindow = 16 << 20
  /// Decoded header fields of a request or an answer.
  static let headerListBytes = 64 << 10
  /// Until a client has said what it speaks, TLS included.
  static let greetingTime = Instant.Span.seconds(10)
  /// Bytes of an HTTP/1.1 request that wait to be read.
  static let visitorBytes = 64 << 10
  /// Bytes of a message that is collected to be rewritten; what is relayed as it comes has etcd's limits.
  static let rewrittenRequestBytes = 64 << 20
  static let rewrittenAnswerBytes = 512 << 20
  /// Leases remembered as granted through a strict namespace.
  static let ownLeases = 1 << 20
  /// An HTTP/1.1 connection may be kept without a request, and wait for a page to be read, for so long.
  static let visitorIdleTime = Instant.Span.seconds(120)
  /// Connections of `--metrics-addr`.
  static let pageVisitors = 256
  /// Pages that a core may have asked for.
  static let pageRequestsACore = 1024
  /// Messages of the control thread that wait for a core whose mailbox is full.
  static let lateMessages = 1 << 14
  /// Pages under way from etcd, and bytes of an answer to the proxy's own calls.
  static let pageFetches = 64
  static let ownAnswerBytes = 64 << 20

  // Leases.
  /// Requests of a client's stream that wait for etcd, and bytes of answers that it has not taken; beyond either its
  /// requests are not read.
  static let heartbeatsAStream = 1024
  static let heartbeatAnswerBytes = 64 << 10
  /// Bytes of one request, which is read when it is there in full.
  static let heartbeatRequestBytes = 32 << 10
  /// Requests of all clients that wait.
  static let heartbeatsWaiting = 1 << 22
  /// Streams to etcd that may end when it is one heartbeat's turn before its clients are told.
  static let heartbeatTries = 4
  /// Tokens of a user that are tried before the clients that hold them are told.
  static let heartbeatTokens = 16
  /// Between two streams to etcd that came to nothing: at first, and at most.
  static let heartbeatPause = Instant.Span.milliseconds(100)
  /// Connections with heartbeats rest so long while several are awaited, rounded up to the next tick of the timers: what comes
  /// meanwhile is taken together.
  static let heartbeatGather = Instant.Span.milliseconds(5)
  static let heartbeatPauseAtMost = Instant.Span.seconds(1)
  /// A heartbeat without an answer for so long is reason to look whether another endpoint is better.
  static let heartbeatPatience = Instant.Span.seconds(1)
  /// A stream to etcd that nobody needs is kept for so long.
  static let heartbeatGrace = Instant.Span.seconds(5)
  // The cache.
  /// Bytes of an answer that is kept or shared, and of a request for one.
  static let cachedAnswerBytes = 1 << 20
  static let cachedRequestBytes = 16 << 10
  /// Entries of a core; an entry is at least a kilobyte of memory, whatever is in it.
  static let cacheEntriesACore = 1 << 20
  static let cacheEntryOverhead = 512
  /// Reads under way of a core that others may share.
  static let sharedReadsACore = 1 << 16
  /// Watches of a core that keep entries right: each is a watcher in etcd. One that was not wanted for the time is given back.
  static let keepersACore = 2048
  static let keeperIdle = Instant.Span.seconds(30)
  /// Keys that are read again within the time are worth a keeper.
  static let keeperHeat = Instant.Span.seconds(1)
  /// After a refusal no keeper is asked for.
  static let keeperPause = Instant.Span.seconds(2)
  /// How often the watch of keepers is asked whether it lives, and the silence after which it does not.
  static let keeperProofs = Instant.Span.milliseconds(400)
  static let keeperSilence = Instant.Span.milliseconds(1500)
  /// Until a keeper has told of the past, where etcd's progress notifications cannot be trusted.
  static let keeperSettling = Instant.Span.seconds(1)
  /// How long etcd's leave to read is taken for granted: of a user for a range, and of a token.
  static let permissionAge = Instant.Span.seconds(10)
  /// Writes that are remembered, and bytes of their keys.
  static let cacheLogRecords = 2048
  static let cacheLogBytes = 128 << 10
  /// Until a consistent read that waits for its keeper goes to etcd.
  static let consistentReadPatience = Instant.Span.milliseconds(50)

  /// Asserts how the caps relate; called once at start.
  static func check() {
    precondition(receiveBuffers * receiveBufferSize <= 8 << 20, "receive buffers must fit the memlock limit")
    precondition(connectionsACore <= 1 << 24, "a handle's slot has 24 bits")
    precondition(endpoints <= 128, "EndpointSet has 128 bits")
    precondition(idlePipesACore <= pipesACore)
    precondition(pipeCapacityLeast <= pipeCapacity)
    precondition(http2FrameBytes <= http2OutputBytes && http2FrameBytes <= http2HeaderBlockBytes)
    precondition(http2SettingsNoise <= http2NoiseBurst)
    precondition(heartbeatRequestBytes + 5 <= clientStreamWindow, "credit follows when a request is read")
    precondition(cacheEntriesACore <= 1 << 24, "a handle's slot has 24 bits")
    precondition(keeperProofs < keeperSilence)
  }
}
