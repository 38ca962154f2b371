internal import Glibc
internal import Reactor

/// Cuts the prefix off the keys of one answer, in one pass; what is not a key is copied as it is.
struct NamespaceResponse {
  private let space: Namespace
  /// False if all was copied.
  private(set) var isRewritten = false

  init(_ space: Namespace) { self.space = space }

  /// Writes `message` without the prefix; false if a key without which it cannot be lies outside the
  /// namespace.
  mutating func strip(
    _ message: UnsafeRawBufferPointer, _ shape: Shape, depth: Int, into output: inout ByteBuffer
  ) throws(NamespaceFault) -> Bool {
    var reader = unsafe ProtoReader(message)
    var copied = 0
    var hasKey = shape.keyField == nil
    while let field = try reader.field() {
      guard field.wire == .bytes, let rule = shape.rule(field.number) else { continue }
      unsafe output.append(UnsafeRawBufferPointer(rebasing: message[copied..<field.range.lowerBound]))
      copied = field.range.upperBound
      isRewritten = true
      switch rule {
      case .key, .name:
        let most = rule == .key ? 1 : 0
        guard let rest = unsafe inside(field.payload, atLeast: most) else { return false }
        unsafe output.appendField(field.number, rest)
        if rule == .key { hasKey = true }
      case .listedKey:
        guard let rest = unsafe inside(field.payload, atLeast: 1) else { continue }
        unsafe output.appendElement(field.number, rest)
      case .optional(let inner):
        _ = try nested(field, inner, depth: depth, into: &output)
      case .required(let inner):
        guard try nested(field, inner, depth: depth, into: &output) else { return false }
      }
    }
    unsafe output.append(UnsafeRawBufferPointer(rebasing: message[copied...]))
    return hasKey
  }

  /// What is behind the prefix; `nil` if the key does not begin with it or is shorter than it and `least`
  /// bytes more.
  private func inside(_ key: UnsafeRawBufferPointer, atLeast least: Int) -> UnsafeRawBufferPointer? {
    let size = space.prefix.count
    guard key.count &- size >= least else { return nil }
    guard size > 0, let start = key.baseAddress, unsafe memcmp(start, space.prefix, size) == 0 else {
      return nil
    }
    return unsafe UnsafeRawBufferPointer(rebasing: key[size...])
  }

  /// A message inside, or nothing of it and false.
  private mutating func nested(
    _ field: ProtoField, _ shape: Shape, depth: Int, into output: inout ByteBuffer
  ) throws(NamespaceFault) -> Bool {
    // As deep as the deepest request that was let through: each transaction is an answer and an operation's.
    guard depth <= 2 * Limits.nestedTransactions + 2 else { throw .malformed }
    let mark = unsafe output.openMessage(field.number, expecting: field.payload.count)
    guard unsafe try strip(field.payload, shape, depth: depth + 1, into: &output) else {
      output.dropMessage(mark)
      return false
    }
    output.closeMessage(mark)
    return true
  }
}
