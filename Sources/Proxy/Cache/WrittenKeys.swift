internal import Reactor

/// The keys that a call writes, laid down in a byte buffer: for each interval its kind, two lengths, start and end.
///
/// Who cannot tell says "everything". Of a transaction both branches count, however deep they are nested.
enum WrittenKeys {
  private static let frame = 9
  private static let everythingKind: UInt8 = 0xFF

  /// One interval, or all keys.
  enum Item {
    case span(SpanView)
    case everything
  }

  static func append(_ span: SpanView, to list: inout ByteBuffer) {
    let (start, end) = unsafe (span.start, span.end)
    let endCount = span.kind == .bounded ? end.count : 0
    let room = unsafe list.reserve(frame + start.count + endCount)
    unsafe room[0] = span.kind.rawValue
    unsafe room.storeBytes(of: UInt32(truncatingIfNeeded: start.count), toByteOffset: 1, as: UInt32.self)
    unsafe room.storeBytes(of: UInt32(truncatingIfNeeded: endCount), toByteOffset: 5, as: UInt32.self)
    unsafe UnsafeMutableRawBufferPointer(rebasing: room[frame...]).copyMemory(from: start)
    if endCount > 0 {
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[(frame + start.count)...]).copyMemory(from: end)
    }
    list.commit(frame + start.count + endCount)
  }

  static func appendEverything(to list: inout ByteBuffer) {
    list.removeAll()
    list.append(everythingKind)
  }

  static func forEach(_ list: UnsafeRawBufferPointer, _ body: (Item) -> Void) {
    var offset = 0
    while offset < list.count {
      guard unsafe list[offset] != everythingKind, offset + frame <= list.count,
        let kind = unsafe SpanKind(rawValue: list[offset])
      else { return body(.everything) }
      let startCount = unsafe Int(list.loadUnaligned(fromByteOffset: offset + 1, as: UInt32.self))
      let endCount = unsafe Int(list.loadUnaligned(fromByteOffset: offset + 5, as: UInt32.self))
      let start = offset + frame
      let end = start + startCount
      unsafe body(
        .span(
          SpanView(
            kind, UnsafeRawBufferPointer(rebasing: list[start..<end]),
            UnsafeRawBufferPointer(rebasing: list[end..<end + endCount]))))
      offset = end + endCount
    }
  }

  // MARK: From requests

  /// Whether calls of the method change keys.
  static func isWrite(_ method: EtcdMethod) -> Bool {
    switch method {
    case .put, .deleteRange, .txn, .leaseRevoke, .lock, .unlock, .campaign, .proclaim, .resign: true
    default: false
    }
  }

  /// Appends what the request writes; nothing for a transaction that only reads.
  static func append(_ method: EtcdMethod, _ message: UnsafeRawBufferPointer, to list: inout ByteBuffer) {
    do {
      switch method {
      case .put, .unlock: unsafe try appendKey(message, end: false, to: &list)
      case .deleteRange: unsafe try appendKey(message, end: true, to: &list)
      case .txn: unsafe try appendTransaction(message, depth: 0, to: &list)
      case .lock, .campaign: unsafe try appendNamed(message, to: &list)
      case .proclaim, .resign: unsafe try appendLeader(message, to: &list)
      // Which keys hang on a lease only etcd knows.
      case .leaseRevoke: appendEverything(to: &list)
      default: break
      }
    } catch {
      appendEverything(to: &list)
    }
  }

  private static func appendKey(
    _ message: UnsafeRawBufferPointer, end hasEnd: Bool, to list: inout ByteBuffer
  ) throws(ProtoMalformed) {
    var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    var end = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      guard field.wire == .bytes else { continue }
      if field.number == 1 { unsafe key = field.payload }
      if field.number == 2, hasEnd { unsafe end = field.payload }
    }
    // What names nothing is refused by etcd, or deletes nothing.
    if let span = unsafe SpanView(key: key, rangeEnd: end) { append(span, to: &list) }
  }

  private static func appendTransaction(
    _ message: UnsafeRawBufferPointer, depth: Int, to list: inout ByteBuffer
  ) throws(ProtoMalformed) {
    guard depth <= Limits.nestedTransactions else { throw ProtoMalformed() }
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      guard field.wire == .bytes, field.number == 2 || field.number == 3 else { continue }
      unsafe try appendOperation(field.payload, depth: depth, to: &list)
    }
  }

  private static func appendOperation(
    _ message: UnsafeRawBufferPointer, depth: Int, to list: inout ByteBuffer
  ) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    var seen = 0
    while let field = try reader.next() {
      guard field.wire == .bytes else { continue }
      // An operation in several parts is put together by etcd: no client writes such a thing.
      seen += 1
      guard seen == 1 else { throw ProtoMalformed() }
      switch field.number {
      case 1: break
      case 2: unsafe try appendKey(field.payload, end: false, to: &list)
      case 3: unsafe try appendKey(field.payload, end: true, to: &list)
      case 4: unsafe try appendTransaction(field.payload, depth: depth + 1, to: &list)
      default: throw ProtoMalformed()
      }
    }
  }

  /// Locks and elections write below `name/`.
  private static func appendNamed(
    _ message: UnsafeRawBufferPointer, to list: inout ByteBuffer
  ) throws(ProtoMalformed) {
    var name: [UInt8] = []
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      if field.number == 1, field.wire == .bytes { name = unsafe Array(field.payload) }
    }
    KeySpan(prefix: name + [UInt8(ascii: "/")]).withRaw { append($0, to: &list) }
  }

  private static func appendLeader(
    _ message: UnsafeRawBufferPointer, to list: inout ByteBuffer
  ) throws(ProtoMalformed) {
    var leaders = unsafe ProtoSequence(of: 1, in: message)
    while let leader = unsafe try leaders.next() {
      var keys = unsafe ProtoSequence(of: 2, in: leader)
      while let key = unsafe try keys.next() {
        if let span = unsafe SpanView(key: key, rangeEnd: UnsafeRawBufferPointer(start: nil, count: 0)) {
          append(span, to: &list)
        }
      }
    }
  }
}
