/// Byte strings for tests that nothing may trap on: reproducible from a seed, half of them pure noise, half of them
/// damaged copies of well-formed samples.
struct ByteStorm: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// SplitMix64.
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<max(limit, 1), using: &self) }

  mutating func noise(upTo limit: Int) -> [UInt8] {
    (0..<below(limit + 1)).map { _ in UInt8(truncatingIfNeeded: next() >> 17) }
  }

  /// A copy with one to eight changes: bytes flipped, set to an extreme, cut off, repeated, removed or inserted.
  mutating func mutated(_ sample: [UInt8]) -> [UInt8] {
    var bytes = sample
    for _ in 0...below(8) {
      guard !bytes.isEmpty else { return bytes }
      let place = below(bytes.count)
      switch below(7) {
      case 0: bytes[place] ^= 1 << UInt8(below(8))
      case 1: bytes[place] = [0, 0x7F, 0x80, 0xC0, 0xFF, 0x0A, 0x0D, 0x20][below(8)]
      case 2: bytes.removeLast(bytes.count - place)
      case 3: bytes.remove(at: place)
      case 4: bytes.insert(UInt8(truncatingIfNeeded: next()), at: place)
      case 5: bytes.insert(contentsOf: bytes[place..<min(place + 16, bytes.count)], at: place)
      default: bytes[place] = UInt8(truncatingIfNeeded: next())
      }
    }
    return bytes
  }

  /// Calls `body` with `count` inputs: noise behind nothing or behind the start of a sample, and mutations.
  mutating func inputs(_ count: Int, from samples: [[UInt8]], _ body: ([UInt8]) -> Void) {
    for round in 0..<(Seeds.asked.map { min(count, 100 * $0) } ?? count) {
      let sample = samples[below(samples.count)]
      switch round % 4 {
      case 0: body(noise(upTo: 160))
      case 1: body(Array(sample.prefix(below(sample.count + 1))) + noise(upTo: 64))
      default: body(mutated(sample))
      }
    }
  }
}
