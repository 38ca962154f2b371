internal import Reactor

/// What the proxy asks on its own account: a range of keys.
struct RangeRequest {
  var key: [UInt8]
  /// Empty for a single key.
  var rangeEnd: [UInt8] = []
  var limit: Int64 = 0
  var isSerializable = false
  var keysOnly = false
  var countOnly = false

  func encode(into output: inout ByteBuffer) {
    output.appendField(1, key)
    output.appendField(2, rangeEnd)
    output.appendField(3, limit)
    output.appendField(7, isSerializable)
    output.appendField(8, keysOnly)
    output.appendField(9, countOnly)
  }

  /// The end of the interval of all keys that begin with `prefix`.
  static func end(ofPrefix prefix: [UInt8]) -> [UInt8] {
    guard let place = prefix.lastIndex(where: { $0 < 0xFF }) else { return [0] }
    return Array(prefix[..<place]) + [prefix[place] + 1]
  }
}

/// A key with its value in an answer. Points into the message; is not copied.
@safe struct KeyValue {
  private(set) var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var createRevision: Int64 = 0
  private(set) var modRevision: Int64 = 0
  private(set) var version: Int64 = 0
  private(set) var value = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var lease: Int64 = 0

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe key = field.payload
      case (2, .varint): createRevision = field.signed
      case (3, .varint): modRevision = field.signed
      case (4, .varint): version = field.signed
      case (5, .bytes): unsafe value = field.payload
      case (6, .varint): lease = field.signed
      default: break
      }
    }
  }
}

/// The answer to a range request. Points into the message.
@safe struct RangeResponse {
  private(set) var header = ResponseHeader()
  private(set) var hasMore = false
  /// Keys in the range, also those beyond the limit.
  private(set) var count: Int64 = 0
  private let message: UnsafeRawBufferPointer

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    unsafe self.message = message
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (3, .varint): hasMore = field.isTrue
      case (4, .varint): count = field.signed
      default: break
      }
    }
  }

  /// The encoded keys with values, each for a `KeyValue`.
  var keyValues: ProtoSequence { unsafe ProtoSequence(of: 2, in: message) }
}

/// A write of the proxy's own.
struct PutRequest {
  var key: [UInt8]
  var value: [UInt8]
  var lease: Int64 = 0

  func encode(into output: inout ByteBuffer) {
    output.appendField(1, key)
    output.appendField(2, value)
    output.appendField(3, lease)
  }

  /// As the only operation of a transaction without conditions, the way etcd's proxy registers itself.
  func encodeTransaction(into output: inout ByteBuffer) {
    let operation = output.openMessage(2, expecting: key.count + value.count)
    let put = output.openMessage(2, expecting: key.count + value.count)
    encode(into: &output)
    output.closeMessage(put)
    output.closeMessage(operation)
  }
}

/// A deletion of the proxy's own, of a single key.
struct DeleteRequest {
  var key: [UInt8]

  func encode(into output: inout ByteBuffer) { output.appendField(1, key) }
}
