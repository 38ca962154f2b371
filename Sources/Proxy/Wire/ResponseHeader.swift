internal import Reactor

/// The header of every answer: who gave it, and at which revision of the store.
struct ResponseHeader: Hashable, Sendable {
  var clusterID: UInt64 = 0
  var memberID: UInt64 = 0
  var revision: Int64 = 0
  var raftTerm: UInt64 = 0

  /// Takes the fields of an encoded header; called for each part of a header in parts.
  mutating func merge(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      guard field.wire == .varint else { continue }
      switch field.number {
      case 1: clusterID = field.scalar
      case 2: memberID = field.scalar
      case 3: revision = field.signed
      case 4: raftTerm = field.scalar
      default: break
      }
    }
  }

  /// The header of any answer, in which it is the first field by number; all zero if there is none.
  static func of(answer message: UnsafeRawBufferPointer) throws(ProtoMalformed) -> ResponseHeader {
    var header = ResponseHeader()
    var parts = unsafe ProtoSequence(of: 1, in: message)
    while let part = unsafe try parts.next() { unsafe try header.merge(part) }
    return header
  }

  /// Appends the header as the field of an answer that it always is.
  func encode(into output: inout ByteBuffer) {
    let mark = output.openMessage(1)
    output.appendField(1, unsigned: clusterID)
    output.appendField(2, unsigned: memberID)
    output.appendField(3, revision)
    output.appendField(4, unsigned: raftTerm)
    output.closeMessage(mark)
  }
}
