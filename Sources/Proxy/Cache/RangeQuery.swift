internal import Reactor

/// A client's read, as far as the cache has to understand it. Points into the message.
///
/// One that holds a field from a later version is not understood: whatever it asks for, its answer could be another.
@safe struct RangeQuery {
  private(set) var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var rangeEnd = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var isSerializable = false
  private var limit: UInt64 = 0
  private var wantedRevision: UInt64 = 0
  private var order: UInt64 = 0
  private var target: UInt64 = 0
  private var keysOnly = false
  private var countOnly = false
  // The least and the greatest revision of the last change, and of the creation.
  private var leastChange: UInt64 = 0
  private var greatestChange: UInt64 = 0
  private var leastCreation: UInt64 = 0
  private var greatestCreation: UInt64 = 0

  init?(_ message: UnsafeRawBufferPointer) {
    var reader = unsafe ProtoReader(message)
    do {
      while let field = try reader.next() { guard take(field) else { return nil } }
    } catch {
      return nil
    }
  }

  private static let serializable = 7

  /// False if the field is not known.
  private mutating func take(_ field: ProtoField) -> Bool {
    switch (field.number, field.wire) {
    case (1, .bytes): unsafe key = field.payload
    case (2, .bytes): unsafe rangeEnd = field.payload
    case (3, .varint): limit = field.scalar
    case (4, .varint): wantedRevision = field.scalar
    case (5, .varint): order = field.scalar
    case (6, .varint): target = field.scalar
    case (Self.serializable, .varint): isSerializable = field.isTrue
    case (8, .varint): keysOnly = field.isTrue
    case (9, .varint): countOnly = field.isTrue
    case (10, .varint): leastChange = field.scalar
    case (11, .varint): greatestChange = field.scalar
    case (12, .varint): leastCreation = field.scalar
    case (13, .varint): greatestCreation = field.scalar
    default: return false
    }
    return true
  }

  /// The keys that the answer depends on; nil if etcd will not like the request.
  var span: SpanView? { unsafe SpanView(key: key, rangeEnd: rangeEnd) }

  /// The revision whose state is asked for, 0 for the newest.
  var revision: Int64 { max(0, Int64(bitPattern: wantedRevision)) }

  /// The same request in the one form that all clients' encodings of it have in common, without `serializable`.
  func encode(into output: inout ByteBuffer) {
    unsafe output.appendField(1, key)
    unsafe output.appendField(2, rangeEnd)
    output.appendField(3, unsigned: limit)
    output.appendField(4, unsigned: wantedRevision)
    output.appendField(5, unsigned: order)
    output.appendField(6, unsigned: target)
    output.appendField(8, keysOnly)
    output.appendField(9, countOnly)
    output.appendField(10, unsigned: leastChange)
    output.appendField(11, unsigned: greatestChange)
    output.appendField(12, unsigned: leastCreation)
    output.appendField(13, unsigned: greatestCreation)
  }

  /// Appends a request with everything that `message` has but `serializable`. False if it cannot be read.
  static func linearize(_ message: UnsafeRawBufferPointer, into output: inout ByteBuffer) -> Bool {
    var reader = unsafe ProtoReader(message)
    do {
      while let field = try reader.next() {
        guard field.number != serializable else { continue }
        unsafe output.append(UnsafeRawBufferPointer(rebasing: message[field.range]))
      }
      return true
    } catch {
      return false
    }
  }
}
