internal import Glibc

/// What the header blocks of all connections of a context have come to last: a head and trailers.
///
/// Peers repeat themselves. A block of nothing but references into the table (RFC 7541 section 6.1) changes nothing, so the
/// same bytes on the same connection behind the same table are the same fields, and need not be decoded again. In a turn with many
/// calls of one client that is all of them but the first.
@safe final class ReceivedHeaders {
  private struct Memory {
    /// The decoder and the state of its table; decoder 0 is none.
    var decoder: UInt64 = 0
    var table: UInt64 = 0
    var block = HeaderBlock.discarded
    var verdict = HeaderDecoder.Verdict(outcome: .broken)
    var count = 0
    var bytes = InlineArray<64, UInt8>(repeating: 0)
  }

  private let heads = HeaderList()
  private let trailers = HeaderList()
  private var head = Memory()
  private var trailer = Memory()
  private var decoders: UInt64 = 0

  /// Blocks that were known.
  private(set) var hits = 0
  /// The fields of the block that came last.
  private(set) var last: HeaderList

  init() { last = heads }

  /// Decodes a whole block, unless it is known; `last` then holds what a good block of that kind consists of.
  func decode(
    _ bytes: UnsafeRawBufferPointer, as block: HeaderBlock, with decoder: inout HeaderDecoder, limit: Int
  ) -> HeaderDecoder.Verdict {
    if decoder.number == 0 {
      decoders &+= 1
      decoder.number = decoders
    }
    if block == .trailers {
      last = trailers
      return unsafe decode(bytes, as: block, with: &decoder, limit, &trailer)
    }
    last = heads
    return unsafe decode(bytes, as: block, with: &decoder, limit, &head)
  }

  private func decode(
    _ bytes: UnsafeRawBufferPointer, as block: HeaderBlock, with decoder: inout HeaderDecoder, _ limit: Int,
    _ memory: inout Memory
  ) -> HeaderDecoder.Verdict {
    if memory.decoder == decoder.number, memory.table == decoder.table, memory.block == block,
      unsafe Self.remembers(memory, bytes)
    {
      hits &+= 1
      return memory.verdict
    }
    let verdict = unsafe decoder.decode(bytes, as: block, into: last, limit: limit)
    guard unsafe Self.isReferences(bytes) else {
      decoder.table &+= 1
      memory.decoder = 0
      return verdict
    }
    memory.decoder = bytes.count <= memory.bytes.count && verdict.outcome == .fine ? decoder.number : 0
    guard memory.decoder != 0 else { return verdict }
    memory.table = decoder.table
    memory.block = block
    memory.verdict = verdict
    memory.count = bytes.count
    for place in 0..<bytes.count { unsafe memory.bytes[place] = bytes[place] }
    return verdict
  }

  private static func remembers(_ memory: borrowing Memory, _ bytes: UnsafeRawBufferPointer) -> Bool {
    guard memory.count == bytes.count, let start = bytes.baseAddress else { return false }
    return unsafe memory.bytes.span.withUnsafeBytes { known in
      guard let known = known.baseAddress else { return false }
      return unsafe memcmp(known, start, bytes.count) == 0
    }
  }

  /// Each byte is a reference of its own; longer ones are not worth the trouble.
  private static func isReferences(_ bytes: UnsafeRawBufferPointer) -> Bool {
    unsafe bytes.allSatisfy { $0 & 0x80 != 0 && $0 != 0xFF }
  }
}
