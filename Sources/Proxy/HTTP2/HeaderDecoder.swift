internal import CNGHTTP2

/// The decompression of one direction of one connection. Its memory comes with the first header block.
@safe struct HeaderDecoder: ~Copyable {
  enum Outcome {
    case fine, malformed
    /// The list is larger than we announced; only its beginning was kept.
    case oversized
    /// The two ends no longer agree on the table: the connection cannot go on.
    case broken
  }

  struct Verdict {
    var outcome: Outcome
    var contentLength: Int64 = -1
    var status = 0
  }

  private var inflater: OpaquePointer?
  /// For `ReceivedHeaders`: who this is, and how often the table may have changed.
  var number: UInt64 = 0
  var table: UInt64 = 0

  init() {}

  deinit { if let inflater = unsafe inflater { unsafe nghttp2_hd_inflate_del(inflater) } }

  /// Decodes a whole block into `list`, which then holds what a good block of that kind consists of.
  mutating func decode(
    _ bytes: UnsafeRawBufferPointer, as block: HeaderBlock, into list: HeaderList, limit: Int
  ) -> Verdict {
    list.removeAll()
    if unsafe inflater == nil {
      guard unsafe nghttp2_hd_inflate_new(&inflater) == 0 else { return Verdict(outcome: .broken) }
    }
    guard let inflater = unsafe inflater else { return Verdict(outcome: .broken) }
    var check = HeaderCheck(block)
    var size = 0
    guard unsafe Self.inflate(inflater, bytes, list, limit, &check, &size) else {
      return Verdict(outcome: .broken)
    }
    check.finish()
    let outcome: Outcome = size > limit ? .oversized : check.isMalformed ? .malformed : .fine
    return Verdict(outcome: outcome, contentLength: check.contentLength, status: check.status)
  }

  /// Goes on with the fields behind the limit, because the table changes with them.
  private static func inflate(
    _ inflater: OpaquePointer, _ bytes: UnsafeRawBufferPointer, _ list: HeaderList, _ limit: Int,
    _ check: inout HeaderCheck, _ size: inout Int
  ) -> Bool {
    var place = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
    var left = bytes.count
    while true {
      var field = unsafe nghttp2_nv()
      var flags: Int32 = 0
      let used = unsafe nghttp2_hd_inflate_hd2(inflater, &field, &flags, place, left, 1)
      guard used >= 0 else { return false }
      unsafe place = place?.advanced(by: used)
      left &-= used
      if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
        size &+= unsafe field.namelen &+ field.valuelen &+ 32
        if size <= limit { unsafe keep(field, list, &check) }
      }
      if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
        return unsafe nghttp2_hd_inflate_end_headers(inflater) == 0
      }
      guard left > 0 || flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 else { return false }
    }
  }

  private static func keep(_ field: nghttp2_nv, _ list: HeaderList, _ check: inout HeaderCheck) {
    let name = unsafe UnsafeRawBufferPointer(start: field.name, count: field.namelen)
    let value = unsafe UnsafeRawBufferPointer(start: field.value, count: field.valuelen)
    let kind = unsafe HeaderKind(name: name)
    unsafe check.take(kind, name, value)
    guard !check.isMalformed, check.block != .discarded else { return }
    let neverIndexed = unsafe field.flags & UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue) != 0
    unsafe list.append(name, value, kind, neverIndexed: neverIndexed)
  }
}
