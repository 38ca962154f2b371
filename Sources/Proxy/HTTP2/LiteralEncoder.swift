/// Header blocks without the dynamic table: static names and literals only, so that the many connections of a server
/// need no encoder each.
enum LiteralEncoder {
  /// `:status 200`, which is the first byte, and `content-type application/grpc`.
  static let statusOK: UInt8 = 0x88
  static let contentType: StaticString = "\u{0F}\u{10}\u{10}application/grpc"
  /// `grpc-status 0` and an empty `grpc-message`, as etcd's server ends a call that went well.
  static let trailersOK: StaticString = "\u{00}\u{0B}grpc-status\u{01}0\u{00}\u{0C}grpc-message\u{00}"

  /// Tells the peer's decoder that we use no table, which has to be said when the peer wants it smaller.
  static let tableSizeZero: UInt8 = 0x20

  /// Room that `encode` needs.
  static func bound(_ list: HeaderList) -> Int { list.byteCount &+ 14 &* list.count }

  /// Writes the block and returns its length. Values are not Huffman-coded: that costs more time than bytes save.
  static func encode(_ list: HeaderList, to room: UnsafeMutableRawBufferPointer) -> Int {
    precondition(room.count >= bound(list))
    var writer = unsafe Writer(room: room)
    for position in 0..<list.count {
      let field = list[position]
      let prefix: UInt8 = field.neverIndexed ? 0x10 : 0
      switch field.kind {
      case .status where unsafe field.value.isEqual(to: "200"):
        writer.put(statusOK)
        continue
      case .status: writer.integer(8, prefix: prefix, bits: 4)
      case .contentType: writer.integer(31, prefix: prefix, bits: 4)
      case .contentLength: writer.integer(28, prefix: prefix, bits: 4)
      default:
        writer.put(prefix)
        unsafe writer.string(field.name)
      }
      unsafe writer.string(field.value)
    }
    return writer.count
  }

  @safe private struct Writer {
    let room: UnsafeMutableRawBufferPointer
    var count = 0

    mutating func put(_ byte: UInt8) {
      unsafe room[count] = byte
      count &+= 1
    }

    /// RFC 7541 section 5.1.
    mutating func integer(_ number: Int, prefix: UInt8, bits: UInt8) {
      let most = (1 << Int(bits)) &- 1
      guard number >= most else { return put(prefix | UInt8(truncatingIfNeeded: number)) }
      put(prefix | UInt8(truncatingIfNeeded: most))
      var rest = number &- most
      while rest >= 128 {
        put(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
      }
      put(UInt8(truncatingIfNeeded: rest))
    }

    mutating func string(_ bytes: UnsafeRawBufferPointer) {
      integer(bytes.count, prefix: 0, bits: 7)
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[count...]).copyMemory(from: bytes)
      count &+= bytes.count
    }
  }
}
