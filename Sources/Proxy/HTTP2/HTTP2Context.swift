internal import CNGHTTP2
internal import Reactor

/// What the HTTP/2 connections of one side share on a core: settings, scratch memory, counters. It outlives them all.
@safe final class HTTP2Context {
  /// How often peers did what only abusers and broken programs do.
  struct Counters {
    var connectionErrors = 0
    var streamErrors = 0
    /// Streams beyond `maxConcurrentStreams`.
    var refusedStreams = 0
    var oversizedHeaders = 0
    /// Connections ended for noise, resets, pings, or answers that nobody reads.
    var floods = 0
  }

  let settings: HTTP2Settings
  let pool: BlockPool
  let headers = ReceivedHeaders()
  /// The header block that came last, on any connection.
  var received: HeaderList { headers.last }
  var counters = Counters()
  /// Largest compressed header block.
  let blockLimit: Int
  /// Secret of the stream tables, so that nobody can choose stream numbers that collide.
  let hashSeed: UInt32

  private var pairs = unsafe UnsafeMutableBufferPointer<nghttp2_nv>(start: nil, count: 0)

  /// - Parameter hashSeed: fixed in simulations, to repeat the order in which streams are visited.
  init(settings: HTTP2Settings, pool: BlockPool, hashSeed: UInt32 = .random(in: .min ... .max)) {
    precondition(settings.streamWindow >= 0 && settings.streamWindow <= Limits.http2Window)
    precondition(settings.maxStreamWindow <= Limits.http2Window)
    precondition(settings.connectionWindow <= Limits.http2Window)
    precondition(settings.maxHeaderListBytes > 0 && settings.maxHeaderListBytes <= 64 << 20)
    self.settings = settings
    self.pool = pool
    self.hashSeed = hashSeed | 1
    blockLimit = max(Limits.http2HeaderBlockBytes, 2 * settings.maxHeaderListBytes)
  }

  deinit { unsafe pairs.deallocate() }

  /// Room for the encoder's view of a header list with so many fields.
  func pairs(_ count: Int) -> UnsafeMutablePointer<nghttp2_nv> {
    if unsafe pairs.count < count {
      unsafe pairs.deallocate()
      unsafe pairs = .allocate(capacity: max(64, count * 2))
      unsafe pairs.initialize(repeating: nghttp2_nv())
    }
    guard let start = unsafe pairs.baseAddress else { preconditionFailure("room was just made") }
    return unsafe start
  }
}
