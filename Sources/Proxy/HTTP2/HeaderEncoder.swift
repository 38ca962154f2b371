internal import CNGHTTP2

/// The compression of a client's connection, with a table: few connections, many similar requests.
@safe struct HeaderEncoder: ~Copyable {
  /// The table that RFC 7541 presumes.
  static let tableSize = 4096

  private var deflater: OpaquePointer?

  init() {}

  deinit { if let deflater = unsafe deflater { unsafe nghttp2_hd_deflate_del(deflater) } }

  /// The peer's SETTINGS_HEADER_TABLE_SIZE. False when memory is short.
  mutating func limitTable(_ size: UInt32) -> Bool {
    guard make(), let deflater = unsafe deflater else { return false }
    return unsafe nghttp2_hd_deflate_change_table_size(deflater, min(Int(size), Self.tableSize)) == 0
  }

  /// Room that `encode` needs.
  static func bound(_ list: HeaderList) -> Int {
    // As for literals, and two changes of the table's size.
    LiteralEncoder.bound(list) &+ 16
  }

  /// Writes the block; returns its length, or nil when memory is short.
  mutating func encode(
    _ list: HeaderList, to room: UnsafeMutableRawBufferPointer, _ context: HTTP2Context
  ) -> Int? {
    guard make(), let deflater = unsafe deflater else { return nil }
    let pairs = unsafe context.pairs(list.count)
    for position in 0..<list.count {
      let field = list[position]
      // A timeout is different in every call: it would push the useful fields out of the table.
      let keepOut = field.neverIndexed || field.kind == .grpcTimeout
      unsafe pairs[position] = nghttp2_nv(
        name: Self.mutable(field.name), value: Self.mutable(field.value), namelen: field.name.count,
        valuelen: field.value.count, flags: keepOut ? UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue) : 0)
    }
    let start = unsafe room.baseAddress?.assumingMemoryBound(to: UInt8.self)
    let length = unsafe nghttp2_hd_deflate_hd(deflater, start, room.count, pairs, list.count)
    return length >= 0 ? length : nil
  }

  /// nghttp2 only reads them.
  private static func mutable(_ bytes: UnsafeRawBufferPointer) -> UnsafeMutablePointer<UInt8>? {
    unsafe UnsafeMutablePointer(mutating: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
  }

  private mutating func make() -> Bool {
    if unsafe deflater != nil { return true }
    return unsafe nghttp2_hd_deflate_new(&deflater, Self.tableSize) == 0
  }
}
