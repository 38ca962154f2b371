internal import Reactor

/// A client's read, as far as the cache has to understand it. Points into the message.
///
/// One that holds a field from a later version is not understood: whatever it asks for, its answer could be another.
@safe struct RangeQuery {
  private(set) var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  private(set) var rangeEnd = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  /// Field by number: limit, revision, order and its target, keys or a count only, and the bounds on revisions.
  private var numbers = InlineArray<14, UInt64>(repeating: 0)
  private(set) var isSerializable = false

  private static let serializable = 7
  private static let known = 1...13

  init?(_ message: UnsafeRawBufferPointer) {
    var reader = unsafe ProtoReader(message)
    do {
      while let field = try reader.next() {
        switch (field.number, field.wire) {
        case (1, .bytes): unsafe key = field.payload
        case (2, .bytes): unsafe rangeEnd = field.payload
        case (Self.serializable, .varint): isSerializable = field.isTrue
        case (3...13, .varint): numbers[field.number] = field.scalar
        default: return nil
        }
      }
    } catch {
      return nil
    }
  }

  /// The keys that the answer depends on; nil if etcd will not like the request.
  var span: SpanView? { unsafe SpanView(key: key, rangeEnd: rangeEnd) }

  /// The revision whose state is asked for, 0 for the newest.
  var revision: Int64 { max(0, Int64(bitPattern: numbers[4])) }

  /// The same request in the one form that all clients' encodings of it have in common, without `serializable`.
  func encode(into output: inout ByteBuffer) {
    unsafe output.appendField(1, key)
    unsafe output.appendField(2, rangeEnd)
    for number in Self.known where number > 2 && number != Self.serializable {
      // What is asked of a value is whether it is true, not which of the many it is.
      let isSwitch = number == 8 || number == 9
      output.appendField(number, unsigned: isSwitch ? (numbers[number] != 0 ? 1 : 0) : numbers[number])
    }
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
