/// One field of a `HeaderList`; good until the list changes.
@safe struct HeaderField {
  let name: UnsafeRawBufferPointer
  let value: UnsafeRawBufferPointer
  let kind: HeaderKind
  /// The sender forbids every hop to put the field into a compression table (RFC 7541 section 7.1.3).
  let neverIndexed: Bool
}

/// Header fields in order, in one piece of memory that is used again for the next list.
@safe final class HeaderList {
  private struct Entry {
    var name: Int32
    var value: Int32
    var end: Int32
    var kind: HeaderKind
    var neverIndexed: Bool
  }

  private var arena = UnsafeMutableRawBufferPointer.allocate(byteCount: 1024, alignment: 16)
  private var used = 0
  private var entries = UnsafeMutableBufferPointer<Entry>.allocate(capacity: 32)

  /// By kind, one more than the place of the first field; 0 is none, or one that is farther behind than anybody looks.
  private var firsts = InlineArray<32, UInt16>(repeating: 0)

  /// Fields in the list.
  private(set) var count = 0

  init() {}

  deinit {
    unsafe arena.deallocate()
    unsafe entries.deallocate()
  }

  /// Bytes of all names and values.
  var byteCount: Int { used }
  /// Size of the list as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
  var listSize: Int { used &+ 32 &* count }

  /// Makes the list empty and keeps its memory.
  func removeAll() {
    count = 0
    used = 0
    firsts = InlineArray(repeating: 0)
  }

  /// Adds a field of constants.
  func append(_ name: StaticString, _ value: StaticString) {
    unsafe append(
      UnsafeRawBufferPointer(name), UnsafeRawBufferPointer(value), neverIndexed: false)
  }

  /// Adds a field with a constant name.
  func append(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
    unsafe append(UnsafeRawBufferPointer(name), value, neverIndexed: false)
  }

  /// Adds a copy of a field, which must not lie in this list.
  func append(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, neverIndexed: Bool) {
    unsafe append(name, value, HeaderKind(name: name), neverIndexed: neverIndexed)
  }

  /// Adds a copy of a field of another list.
  func append(_ field: HeaderField) {
    unsafe append(field.name, field.value, field.kind, neverIndexed: field.neverIndexed)
  }

  /// Adds a field whose kind is known already.
  func append(
    _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ kind: HeaderKind, neverIndexed: Bool
  ) {
    let size = name.count &+ value.count
    makeRoom(size)
    let middle = used &+ name.count
    unsafe UnsafeMutableRawBufferPointer(rebasing: arena[used...]).copyMemory(from: name)
    unsafe UnsafeMutableRawBufferPointer(rebasing: arena[middle...]).copyMemory(from: value)
    unsafe entries[count] = Entry(
      name: Int32(used), value: Int32(middle), end: Int32(used &+ size), kind: kind,
      neverIndexed: neverIndexed)
    used &+= size
    count &+= 1
    let kind = Int(kind.rawValue)
    if firsts[kind] == 0, count <= Int(UInt16.max) { firsts[kind] = UInt16(count) }
  }

  subscript(position: Int) -> HeaderField {
    precondition(position >= 0 && position < count)
    let entry = unsafe entries[position]
    return unsafe HeaderField(
      name: UnsafeRawBufferPointer(rebasing: arena[Int(entry.name)..<Int(entry.value)]),
      value: UnsafeRawBufferPointer(rebasing: arena[Int(entry.value)..<Int(entry.end)]),
      kind: entry.kind, neverIndexed: entry.neverIndexed)
  }

  /// The value of the first field of a kind.
  func value(of kind: HeaderKind) -> UnsafeRawBufferPointer? {
    let first = Int(firsts[Int(kind.rawValue)])
    return unsafe first == 0 ? nil : self[first &- 1].value
  }

  private func makeRoom(_ size: Int) {
    precondition(size < 64 << 20 && used < 512 << 20, "a header list of half a gigabyte")
    if unsafe arena.count &- used < size {
      let larger = unsafe UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(arena.count &* 2, used &+ size), alignment: 16)
      unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: arena[..<used]))
      unsafe arena.deallocate()
      unsafe arena = larger
    }
    if unsafe entries.count == count {
      let larger = UnsafeMutableBufferPointer<Entry>.allocate(capacity: count &* 2)
      _ = unsafe larger.initialize(from: entries)
      unsafe entries.deallocate()
      unsafe entries = larger
    }
  }
}
