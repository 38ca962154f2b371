internal import Reactor

/// Writes the prefix before the keys of one request, in one pass.
///
/// Fields that hold no keys are copied as they are, known or not. A message field that may be there several
/// times though it is not repeated is written once with all its parts, and of a choice only the member that
/// counts: what is sent can be read in one way only.
struct NamespaceRequest {
  private let space: Namespace
  /// The lease that the request uses, of which there may be only one in a strict namespace; 0 for none.
  private(set) var lease: Int64 = 0
  /// False if all was copied.
  private(set) var isRewritten = false

  init(_ space: Namespace) { self.space = space }

  /// Rewrites a whole request.
  mutating func rewrite(
    _ message: UnsafeRawBufferPointer, _ shape: Shape, into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    if let members = shape.members {
      return unsafe try choose(message, shape, members, depth: 0, into: &output)
    }
    var seen = Seen()
    unsafe try contents(message, shape, &seen, depth: 0, into: &output)
    try finish(shape, seen, into: &output)
  }

  /// What has been met in a message, whose parts may stand in several places.
  private struct Seen {
    var hasKey = false
    var hasName = false
    var lease: Int64 = 0
  }

  // MARK: Messages

  /// The fields of one part of a message.
  private mutating func contents(
    _ message: UnsafeRawBufferPointer, _ shape: Shape, _ seen: inout Seen, depth: Int,
    into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    var reader = unsafe ProtoReader(message)
    var copied = 0
    var hasMerged = false
    while let field = try reader.field() {
      let rule = shape.rule(field)
      switch rule {
      case .copy: continue
      case .lease:
        seen.lease = field.signed
        continue
      case .key:
        // An empty key stays one: the last one counts, and is refused in the end.
        seen.hasKey = unsafe !field.payload.isEmpty
        if !seen.hasKey { continue }
      case .rangeEnd: if unsafe field.payload.isEmpty { continue }
      case .name: seen.hasName = true
      case .element, .merged: break
      }
      unsafe output.append(UnsafeRawBufferPointer(rebasing: message[copied..<field.range.lowerBound]))
      copied = field.range.upperBound
      isRewritten = true
      switch rule {
      case .rangeEnd: appendEnd(field, into: &output)
      case .element(let inner):
        try element(field, inner, depth: depth, into: &output)
      case .merged(let inner):
        if hasMerged { continue }
        hasMerged = true
        unsafe try merge(field, in: message, inner, depth: depth, into: &output)
      default: unsafe output.appendField(field.number, space.prefix, field.payload)
      }
    }
    unsafe output.append(UnsafeRawBufferPointer(rebasing: message[copied...]))
  }

  private func appendEnd(_ field: ProtoField, into output: inout ByteBuffer) {
    // A single 00 means "to the end", which is the end of the namespace.
    if unsafe field.payload.count == 1 && field.payload[0] == 0 {
      output.appendField(field.number, space.end)
    } else {
      unsafe output.appendField(field.number, space.prefix, field.payload)
    }
  }

  /// One member of a repeated field.
  private mutating func element(
    _ field: ProtoField, _ shape: Shape, depth: Int, into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    let mark = unsafe output.openMessage(field.number, expecting: field.payload.count &+ space.prefix.count)
    if let members = shape.members {
      unsafe try choose(field.payload, shape, members, depth: depth, into: &output)
    } else {
      var seen = Seen()
      unsafe try contents(field.payload, shape, &seen, depth: depth, into: &output)
      try finish(shape, seen, into: &output)
    }
    output.closeMessage(mark)
  }

  /// A message made of all fields of this number from `first` on.
  private mutating func merge(
    _ first: ProtoField, in message: UnsafeRawBufferPointer, _ shape: Shape, depth: Int,
    into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    let mark = unsafe output.openMessage(first.number, expecting: first.payload.count &+ space.prefix.count)
    var seen = Seen()
    var reader = unsafe ProtoReader(message, from: first.range.lowerBound)
    while let part = try reader.field() {
      guard part.number == first.number, part.wire == .bytes else { continue }
      unsafe try contents(part.payload, shape, &seen, depth: depth, into: &output)
    }
    try finish(shape, seen, into: &output)
    output.closeMessage(mark)
  }

  /// A message that is a choice: the member set last counts, with its parts since another one was set.
  private mutating func choose(
    _ message: UnsafeRawBufferPointer, _ shape: Shape, _ members: ClosedRange<Int>, depth: Int,
    into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    var reader = unsafe ProtoReader(message)
    var chosen: ProtoField?
    while let field = try reader.field() {
      if members.contains(field.number), field.wire == .bytes {
        if chosen?.number != field.number { chosen = field }
      } else if space.isStrict {
        // Perhaps a kind of operation from a later version, which nobody here can look into.
        throw .denied
      } else {
        unsafe output.append(UnsafeRawBufferPointer(rebasing: message[field.range]))
      }
    }
    guard let chosen else { return }
    isRewritten = true
    let inner = shape.member(chosen.number)
    guard inner != .transaction || depth < Limits.nestedTransactions else { throw .tooDeep }
    unsafe try merge(chosen, in: message, inner, depth: depth + 1, into: &output)
  }

  // MARK: Completing

  /// A message has ended: adds what it does not say, refuses it if that cannot be.
  private mutating func finish(
    _ shape: Shape, _ seen: Seen, into output: inout ByteBuffer
  ) throws(NamespaceFault) {
    if let name = shape.nameField, !seen.hasName {
      output.appendField(name, space.prefix)
      isRewritten = true
    }
    if let key = shape.keyField, !seen.hasKey {
      guard shape == .watchCreate else { throw .emptyKey }
      output.appendField(key, space.first)
      isRewritten = true
    }
    guard seen.lease != 0, seen.lease != lease else { return }
    guard lease == 0 || !space.isStrict else { throw .denied }
    lease = seen.lease
  }
}
