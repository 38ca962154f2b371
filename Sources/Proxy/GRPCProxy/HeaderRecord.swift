internal import Reactor

/// Header fields laid down in a byte buffer, to be sent later or again: for each one the lengths, a mark, name and value.
enum HeaderRecord {
  private static let frame = 8

  /// Appends all fields of `list`.
  static func write(_ list: HeaderList, into record: inout ByteBuffer) {
    let size = list.byteCount &+ frame &* list.count
    let room = unsafe record.reserve(size)
    var place = 0
    for index in 0..<list.count {
      let field = list[index]
      let (name, value) = unsafe (field.name, field.value)
      let text = place &+ frame
      unsafe room.storeBytes(of: UInt16(truncatingIfNeeded: name.count), toByteOffset: place, as: UInt16.self)
      unsafe room.storeBytes(of: field.kind.rawValue, toByteOffset: place &+ 2, as: UInt8.self)
      unsafe room.storeBytes(of: field.neverIndexed ? 1 : 0, toByteOffset: place &+ 3, as: UInt8.self)
      unsafe room.storeBytes(
        of: UInt32(truncatingIfNeeded: value.count), toByteOffset: place &+ 4, as: UInt32.self)
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[text...]).copyMemory(from: name)
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[(text &+ name.count)...]).copyMemory(from: value)
      place = text &+ name.count &+ value.count
    }
    record.commit(size)
  }

  @safe private struct Field {
    let kind: HeaderKind
    let isNeverIndexed: Bool
    let name: UnsafeRawBufferPointer
    let value: UnsafeRawBufferPointer
  }

  private static func forEach(_ record: borrowing ByteBuffer, _ body: (Field) -> Void) {
    let bytes = unsafe record.bytes
    var offset = 0
    while offset + frame <= bytes.count {
      let nameCount = unsafe Int(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      let valueCount = unsafe Int(bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self))
      let start = offset + frame
      unsafe body(
        Field(
          kind: HeaderKind(rawValue: bytes[offset + 2]) ?? .other, isNeverIndexed: bytes[offset + 3] == 1,
          name: UnsafeRawBufferPointer(rebasing: bytes[start..<start + nameCount]),
          value: UnsafeRawBufferPointer(rebasing: bytes[start + nameCount..<start + nameCount + valueCount])))
      offset = start + nameCount + valueCount
    }
  }

  /// Puts all fields back into a list.
  static func read(_ record: borrowing ByteBuffer, into list: HeaderList) {
    forEach(record) { field in
      unsafe list.append(field.name, field.value, neverIndexed: field.isNeverIndexed)
    }
  }

  /// Puts those fields of a request into `list` that go on to etcd as they are: all but the pseudo fields and what
  /// concerns one hop only.
  static func forward(_ record: borrowing ByteBuffer, to list: HeaderList) {
    forEach(record) { field in
      switch field.kind {
      case .method, .scheme, .authority, .path, .te, .grpcTimeout, .host, .contentLength: return
      default: unsafe list.append(field.name, field.value, neverIndexed: field.isNeverIndexed)
      }
    }
  }

  /// The values of all fields of a kind.
  static func value(
    _ kind: HeaderKind, in record: borrowing ByteBuffer, _ body: (UnsafeRawBufferPointer) -> Void
  ) {
    forEach(record) { field in
      if field.kind == kind { unsafe body(field.value) }
    }
  }
}

extension HeaderList {
  /// Adds the fields of an answer, head or trailers, as they came.
  func append(answer: HeaderList) {
    for index in 0..<answer.count {
      append(answer[index])
    }
  }
}
