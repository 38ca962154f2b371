/// The one source of chance in a simulation (SplitMix64): the same seed gives the same run.
package struct SimRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) {
    state = seed
    // Neighbouring seeds would otherwise begin with similar numbers.
    state = next() ^ seed &* 0xD6E8_FEB8_6659_FD93
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  /// 0 ..< limit; 0 when the limit is not positive.
  package mutating func below(_ limit: Int) -> Int {
    limit <= 1 ? 0 : Int(next().multipliedFullWidth(by: UInt64(limit)).high)
  }

  /// True this many times in a thousand.
  package mutating func chance(_ perMille: Int) -> Bool { perMille > 0 && below(1000) < perMille }

  package mutating func pick<T>(_ items: [T]) -> T { items[below(items.count)] }

  /// 1 ... limit, each order of magnitude about as likely as any other.
  package mutating func size(upTo limit: Int) -> Int {
    guard limit > 1 else { return 1 }
    let bits = Int.bitWidth - limit.leadingZeroBitCount
    return min(limit, 1 + below(1 << (1 + below(bits))))
  }
}

/// Bytes in order: appended behind, taken from the front.
package struct ByteFIFO {
  private var bytes: [UInt8] = []
  private var start = 0

  package init() {}
  package var count: Int { bytes.count - start }
  package var isEmpty: Bool { count == 0 }

  package mutating func append(_ more: some Collection<UInt8>) { bytes.append(contentsOf: more) }

  package mutating func append(_ more: UnsafeRawBufferPointer) { bytes.append(contentsOf: more) }

  /// Takes at most `limit` bytes.
  package mutating func take(_ limit: Int) -> [UInt8] {
    let amount = min(limit, count)
    let taken = Array(bytes[start..<start + amount])
    drop(amount)
    return taken
  }

  /// Copies out and drops as many as fit.
  package mutating func take(into room: UnsafeMutableRawBufferPointer) -> Int {
    let amount = min(room.count, count)
    guard amount > 0, let place = room.baseAddress else { return 0 }
    bytes.withUnsafeBytes {
      UnsafeMutableRawBufferPointer(start: place, count: amount).copyMemory(
        from: .init(rebasing: $0[start..<start + amount]))
    }
    drop(amount)
    return amount
  }

  package mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    start = 0
  }

  private mutating func drop(_ amount: Int) {
    start += amount
    if start == bytes.count {
      removeAll()
    } else if start > 1 << 16 {
      bytes.removeFirst(start)
      start = 0
    }
  }
}

/// What every stream of a simulation carries: noise that tells its own position, so that no byte need be remembered.
///
/// The first eight bytes name the stream, which also says where in the noise it begins.
package enum SimStream {
  package static let nameBytes = 8
  private static let period = 65_521
  private static let noise: [UInt8] = {
    var random = SimRandom(seed: 0x5EED)
    let once = (0..<period).map { _ in UInt8(truncatingIfNeeded: random.next() >> 11) }
    return once + once
  }()

  /// The bytes of stream `name` from `offset` on, at most 60,000.
  package static func bytes(of name: UInt64, at offset: Int, count: Int) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(count)
    var place = offset
    while place < min(nameBytes, offset + count) {
      result.append(UInt8(truncatingIfNeeded: name >> UInt64(8 * place)))
      place += 1
    }
    let left = offset + count - place
    guard left > 0 else { return result }
    let start = Int((name &* 7919 &+ UInt64(place)) % UInt64(period))
    result += noise[start..<start + left]
    return result
  }

  package static func matches(_ bytes: [UInt8], _ name: UInt64, at offset: Int) -> Bool {
    var place = 0
    while place < bytes.count {
      let piece = min(60_000, bytes.count - place)
      guard Array(bytes[place..<place + piece]) == self.bytes(of: name, at: offset + place, count: piece)
      else {
        return false
      }
      place += piece
    }
    return true
  }

  /// The name that the first eight bytes give.
  package static func name(in bytes: [UInt8]) -> UInt64? {
    guard bytes.count >= nameBytes else { return nil }
    return (0..<nameBytes).reduce(0) { $0 | UInt64(bytes[$1]) << UInt64(8 * $1) }
  }
}
