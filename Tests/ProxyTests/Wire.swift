import Reactor

@testable import Proxy

/// Messages for tests, as arrays.
enum Wire {
  /// What `body` writes.
  static func written(_ body: (inout ByteBuffer) -> Void) -> [UInt8] {
    let pool = BlockPool()
    return withExtendedLifetime(pool) {
      var buffer = ByteBuffer(pool)
      body(&buffer)
      return Array(buffer.bytes)
    }
  }

  static func varint(_ value: UInt64) -> [UInt8] {
    value < 0x80 ? [UInt8(value)] : [UInt8(value & 0x7F) | 0x80] + varint(value >> 7)
  }

  /// A field of bytes, written though it may be empty.
  static func field(_ number: UInt64, _ bytes: [UInt8]) -> [UInt8] {
    varint(number << 3 | 2) + varint(UInt64(bytes.count)) + bytes
  }

  static func field(_ number: UInt64, _ text: String) -> [UInt8] { field(number, Array(text.utf8)) }

  static func field(_ number: UInt64, number value: UInt64) -> [UInt8] { varint(number << 3) + varint(value) }

  /// A field of a decoded message.
  struct Field: Equatable {
    let number: Int
    let wire: ProtoWire
    let scalar: UInt64
    let bytes: [UInt8]
  }

  /// All fields of a message, `nil` if it is malformed.
  static func fields(_ message: [UInt8]) -> [Field]? {
    try? message.withUnsafeBytes { bytes throws -> [Field] in
      var reader = ProtoReader(bytes)
      var fields: [Field] = []
      while let field = try reader.next() {
        fields.append(
          Field(
            number: field.number, wire: field.wire, scalar: field.scalar, bytes: Array(field.payload)))
      }
      return fields
    }
  }

  /// The content of a field of bytes: of several the last.
  static func last(_ number: Int, in message: [UInt8]) -> [UInt8]? {
    fields(message)?.last { $0.number == number && $0.wire == .bytes }?.bytes
  }
}

extension Namespace {
  /// A verdict that can be compared, with what was written.
  enum Outcome: Equatable {
    case rewritten([UInt8])
    case unchanged
    case refused(GRPCStatus.Code, String)
    case malformed
    case lease(Int64, [UInt8]?)
  }

  func request(_ method: EtcdMethod, _ message: [UInt8]) -> Outcome {
    outcome(message) { bytes, output in request(method, bytes, into: &output) }
  }

  func response(_ method: EtcdMethod, _ message: [UInt8]) -> Outcome {
    outcome(message) { bytes, output in response(method, bytes, into: &output) }
  }

  private func outcome(
    _ message: [UInt8], _ body: (UnsafeRawBufferPointer, inout ByteBuffer) -> NamespaceVerdict
  ) -> Outcome {
    let pool = BlockPool()
    return withExtendedLifetime(pool) { outcome(message, ByteBuffer(pool), body) }
  }

  private func outcome(
    _ message: [UInt8], _ empty: consuming ByteBuffer,
    _ body: (UnsafeRawBufferPointer, inout ByteBuffer) -> NamespaceVerdict
  ) -> Outcome {
    var buffer = empty
    // What stands in the buffer before must not matter, and must not be touched.
    buffer.append("before")
    let verdict = message.withUnsafeBytes { body($0, &buffer) }
    precondition(buffer.bytes.prefix(6).elementsEqual("before".utf8))
    let written = Array(buffer.bytes.dropFirst(6))
    switch verdict {
    case .rewritten: return .rewritten(written)
    case .needsLeaseCheck(let id, isRewritten: true): return .lease(id, written)
    default: precondition(written.isEmpty, "left something behind")
    }
    switch verdict {
    case .refused(let code, let text): return .refused(code, "\(text)")
    case .malformed: return .malformed
    case .needsLeaseCheck(let id, _): return .lease(id, nil)
    default: return .unchanged
    }
  }
}
