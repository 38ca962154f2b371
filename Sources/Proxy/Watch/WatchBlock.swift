internal import Reactor
internal import Synchronization

/// One response of etcd's to a watch, as it goes to any number of watchers on all cores: immutable, encoded once.
///
/// The bytes are a whole `WatchResponse` but for the watch's number, which follows them in each message. Responses that etcd
/// sent in fragments are one block. What some watchers do not want is left out in a variant, made when first needed.
@safe final class WatchBlock: @unchecked Sendable {
  /// What a watcher wants left out.
  struct Variant: OptionSet, Hashable {
    let rawValue: UInt8
    static let noPuts = Variant(rawValue: 1)
    static let noDeletes = Variant(rawValue: 2)
    static let noPrevious = Variant(rawValue: 4)
    /// Not left out but cut: in parts of the size that etcd would make.
    static let parts = Variant(rawValue: 8)
    static let count = 16
  }

  /// The encodings of one variant: one message, or parts; none when nothing is left.
  final class Encoding: Sendable {
    let messages: [[UInt8]]
    init(_ messages: [[UInt8]]) { self.messages = messages }
  }

  /// Revisions of the first and the last event.
  let first: Int64
  let last: Int64
  let header: ResponseHeader
  /// The events carry what was there before, where there was something.
  let hasPrevious: Bool
  let eventCount: Int
  private let hasPuts: Bool
  private let hasDeletes: Bool
  /// Header and events.
  private let memory: UnsafeMutableRawBufferPointer
  private let eventsAt: Int
  private let variants = InlineArray<16, AtomicLazyReference<Encoding>> { _ in AtomicLazyReference() }

  /// How etcd cuts (etcdserver/api/v3rpc/watch.go: sendFragments): the largest request it takes, with its overhead.
  static let partBytes = (3 << 19) + (512 << 10)

  /// - Parameter events: the fields of all events as they stand in a `WatchResponse`, in the order of their revisions.
  /// - Returns: nil if they cannot be read, or there are none.
  init?(_ events: UnsafeRawBufferPointer, header: ResponseHeader, hasPrevious: Bool, from floor: Int64 = 0) {
    var revisions: (Int64, Int64)?
    var (puts, deletes, count) = (false, false, 0)
    var sequence = unsafe ProtoSequence(of: 11, in: events)
    var start = 0
    do throws(ProtoMalformed) {
      while let message = unsafe try sequence.next() {
        let event = unsafe try WatchEvent(message)
        let revision = try event.revision
        if revision < floor {
          start = sequence.position
          continue
        }
        revisions = (min(revisions?.0 ?? revision, revision), max(revisions?.1 ?? revision, revision))
        if event.isDelete { deletes = true } else { puts = true }
        count += 1
      }
    } catch {
      return nil
    }
    guard let (first, last) = revisions else { return nil }
    (self.first, self.last) = (first, last)
    self.header = header
    self.hasPrevious = hasPrevious
    (hasPuts, hasDeletes, eventCount) = (puts, deletes, count)
    let head = header.encoded
    let rest = unsafe UnsafeRawBufferPointer(rebasing: events[start...])
    unsafe memory = .allocate(byteCount: head.count + rest.count, alignment: 8)
    unsafe memory.copyBytes(from: head)
    unsafe UnsafeMutableRawBufferPointer(rebasing: memory[head.count...]).copyMemory(from: rest)
    eventsAt = head.count
  }

  deinit { unsafe memory.deallocate() }

  /// Bytes of the block as it is, for what a history may hold.
  var byteCount: Int { unsafe memory.count + 256 }

  /// The whole block, but for the watch's number.
  var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(memory) }

  /// The encoded events.
  var events: ProtoSequence { unsafe ProtoSequence(of: 11, in: eventBytes) }

  private var eventBytes: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: memory[eventsAt...])
  }

  /// The part of the wish that makes a difference for this block; empty when it is sent as it is.
  func relevant(_ wish: Variant) -> Variant {
    var variant = wish
    if !hasPuts { variant.remove(.noPuts) }
    if !hasDeletes { variant.remove(.noDeletes) }
    if !hasPrevious { variant.remove(.noPrevious) }
    if unsafe memory.count < Self.partBytes { variant.remove(.parts) }
    return variant
  }

  /// The encoding for a wish that makes a difference.
  func encoding(_ variant: Variant) -> Encoding {
    let place = Int(variant.rawValue) & (Variant.count - 1)
    if let made = variants[place].load() { return made }
    return variants[place].storeIfNil(encode(variant))
  }

  /// A block of only what is not older than `floor`.
  func cut(from floor: Int64) -> WatchBlock? {
    unsafe WatchBlock(eventBytes, header: header, hasPrevious: hasPrevious, from: floor)
  }

  /// The key of each event, and its place among the encoded events.
  func forEachEvent(_ body: (_ key: UnsafeRawBufferPointer, _ place: Range<Int>) -> Void) {
    var sequence = events
    var start = 0
    while let message = unsafe try? sequence.next(), let event = unsafe try? WatchEvent(message) {
      let place = start..<sequence.position
      start = sequence.position
      if let key = unsafe try? event.key { unsafe body(key, place) }
    }
  }

  /// A block of only the events in these places; itself if that is all of them.
  func part(_ places: [Range<Int>]) -> WatchBlock? {
    guard places.count < eventCount else { return self }
    var fields: [UInt8] = []
    for place in places { unsafe fields += eventBytes[place] }
    return unsafe fields.withUnsafeBytes { unsafe WatchBlock($0, header: header, hasPrevious: hasPrevious) }
  }

  private func encode(_ variant: Variant) -> Encoding {
    let head = unsafe Array(memory[..<eventsAt])
    var messages: [[UInt8]] = []
    var current: [UInt8] = []
    var inCurrent = 0
    var sequence = events
    while let message = unsafe try? sequence.next(), let event = unsafe try? WatchEvent(message) {
      if event.isDelete ? variant.contains(.noDeletes) : variant.contains(.noPuts) { continue }
      let bytes = unsafe variant.contains(.noPrevious) ? event.withoutPrevious : Array(message)
      let size = bytes.count + 1 + ProtoSize.varint(UInt64(bytes.count))
      if variant.contains(.parts), inCurrent > 0, head.count + current.count + size >= Self.partBytes {
        messages.append(head + current)
        current.removeAll()
        inCurrent = 0
      }
      current.append(11 << 3 | 2)
      ProtoSize.append(UInt64(bytes.count), to: &current)
      current += bytes
      inCurrent += 1
    }
    if inCurrent > 0 { messages.append(head + current) }
    // All parts but the last say that more follows.
    for part in messages.indices.dropLast() { messages[part] += [7 << 3, 1] }
    return Encoding(messages)
  }
}

/// Numbers in an array of bytes.
enum ProtoSize {
  static func varint(_ value: UInt64) -> Int { max(1, (70 - value.leadingZeroBitCount) / 7) }

  static func append(_ value: UInt64, to bytes: inout [UInt8]) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
}

extension ResponseHeader {
  /// The header as the first field of an answer.
  var encoded: [UInt8] {
    var fields: [UInt8] = []
    for (number, value) in [(1, clusterID), (2, memberID), (3, UInt64(bitPattern: revision)), (4, raftTerm)]
    where value != 0 {
      fields.append(UInt8(number << 3))
      ProtoSize.append(value, to: &fields)
    }
    return [1 << 3 | 2, UInt8(fields.count)] + fields
  }
}

extension WatchEvent {
  /// The revision of the change.
  var revision: Int64 {
    get throws(ProtoMalformed) {
      var revision: Int64 = 0
      var reader = unsafe ProtoReader(keyValue)
      while let field = try reader.next() {
        if field.number == 3, field.wire == .varint { revision = field.signed }
      }
      return revision
    }
  }

  /// The key that changed.
  var key: UnsafeRawBufferPointer {
    get throws(ProtoMalformed) {
      var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
      var reader = unsafe ProtoReader(keyValue)
      while let field = try reader.next() {
        if field.number == 1, field.wire == .bytes { unsafe key = field.payload }
      }
      return unsafe key
    }
  }
}
