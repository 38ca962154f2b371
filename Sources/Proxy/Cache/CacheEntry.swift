internal import Reactor

/// An answer that is kept.
struct CacheEntry: ~Copyable {
  /// The request in canonical form, and whose it is.
  let key: ByteBuffer
  let hash: UInt64
  let span: CacheSpan
  /// The revision that was asked for; 0 for the newest, whose answer goes out of date.
  let fixed: Int64
  /// What etcd's header said.
  let header: ResponseHeader
  /// When the read was sent to etcd: the answer is no older than that, and etcd has allowed it then.
  let asked: Instant
  /// When etcd last allowed it.
  var allowed: Instant
  /// When it was last wanted.
  var wanted: Instant
  let charge: Int

  /// Room for what goes in front, then the answer without its header.
  private var bytes: ByteBuffer
  /// Where the gRPC message begins that is written there, and the revision in its header.
  private var begin = CacheEntry.room
  private var shown: Int64 = -1

  /// It has been wanted since the hand last passed.
  var isWanted = false
  // Its neighbours: among the entries of its span, and in the order of the hand.
  var nextOfSpan = Handle.none
  var previousOfSpan = Handle.none
  var newer = Handle.none
  var older = Handle.none

  /// gRPC's prefix and a header of four numbers at their longest.
  private static let room = GRPCMessage.prefix + 2 + 4 * 11

  init(
    key: consuming ByteBuffer, hash: UInt64, span: CacheSpan, fixed: Int64, header: ResponseHeader,
    asked: Instant,
    now: Instant, body: borrowing ByteBuffer, _ pool: BlockPool
  ) {
    charge = Self.charge(key: key.count, body: body.count)
    self.key = key
    self.hash = hash
    self.span = span
    self.fixed = fixed
    self.header = header
    self.asked = asked
    allowed = asked
    wanted = now
    bytes = ByteBuffer(pool)
    _ = unsafe bytes.reserve(Self.room + body.count)
    bytes.commit(Self.room)
    unsafe bytes.append(body.bytes)
  }

  /// Bytes that an entry takes up, those of the pool's rounding included.
  static func charge(key: Int, body: Int) -> Int {
    rounded(key) + rounded(room + body) + Limits.cacheEntryOverhead
  }

  private static func rounded(_ size: Int) -> Int {
    var block = 512
    while block < size { block *= 2 }
    return block
  }

  /// Bytes of the answer without its header.
  var bodyCount: Int { bytes.count - Self.room }

  /// The whole message as it stands on the wire, with this revision in its header.
  mutating func render(_ revision: Int64, scratch: inout ByteBuffer) -> UnsafeRawBufferPointer {
    if revision != shown {
      shown = revision
      var header = header
      header.revision = revision
      scratch.removeAll()
      header.encode(into: &scratch)
      begin = Self.room - scratch.count - GRPCMessage.prefix
      let place = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes.mutableBytes[begin..<Self.room])
      let length = UInt32(truncatingIfNeeded: scratch.count + bodyCount)
      unsafe MessageFramer.writeHeader(length: length, into: place)
      unsafe UnsafeMutableRawBufferPointer(rebasing: place[GRPCMessage.prefix...]).copyMemory(
        from: scratch.bytes)
      scratch.removeAll()
    }
    return unsafe UnsafeRawBufferPointer(rebasing: bytes.bytes[begin...])
  }
}

/// An answer of etcd's, taken apart.
struct CacheAnswer: ~Copyable {
  private(set) var header = ResponseHeader()
  private(set) var body: ByteBuffer

  /// Nil if it is not what etcd answers a read with.
  init?(_ message: UnsafeRawBufferPointer, _ pool: BlockPool) {
    body = ByteBuffer(pool)
    var reader = unsafe ProtoReader(message)
    var copied = 0
    do {
      while let field = try reader.next() {
        guard field.number == 1, field.wire == .bytes else { continue }
        unsafe try header.merge(field.payload)
        unsafe body.append(UnsafeRawBufferPointer(rebasing: message[copied..<field.range.lowerBound]))
        copied = field.range.upperBound
      }
    } catch {
      return nil
    }
    guard header.revision > 0, header.revision < .max else { return nil }
    unsafe body.append(UnsafeRawBufferPointer(rebasing: message[copied...]))
  }
}
