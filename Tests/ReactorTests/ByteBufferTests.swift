import Reactor
import Testing

@Suite struct ByteBufferTests {
  private func array(_ buffer: borrowing ByteBuffer) -> [UInt8] { unsafe Array(buffer.bytes) }

  @Test func keepsTheOrderThroughGrowthAndConsumption() {
    let pool = BlockPool()
    var generator = SystemRandomNumberGenerator()
    var buffer = ByteBuffer(pool)
    var model: [UInt8] = []
    for _ in 0..<2000 {
      if Bool.random(using: &generator) {
        let piece = (0..<Int.random(in: 0...900)).map { _ in UInt8.random(in: 0...255) }
        buffer.append(piece)
        model += piece
      } else {
        let amount = Int.random(in: 0...model.count)
        buffer.consume(amount)
        model.removeFirst(amount)
      }
      #expect(buffer.count == model.count)
    }
    #expect(array(buffer) == model)
    buffer.truncate(to: model.count / 2)
    #expect(array(buffer) == Array(model.prefix(model.count / 2)))
    buffer.removeAll()
    #expect(pool.bytesInUse == 0)
  }

  @Test func anEmptyBufferHoldsNoMemory() {
    let pool = BlockPool()
    do {
      var buffer = ByteBuffer(pool)
      buffer.append("abc")
      #expect(pool.bytesInUse == 512)
      buffer.consume(3)
      #expect(pool.bytesInUse == 0)
      _ = unsafe buffer.reserve(100)
      buffer.commit(0)
      #expect(pool.bytesInUse == 0)
      buffer.append(Array(repeating: 7, count: 3 << 20))
      #expect(pool.bytesInUse == 3 << 20)
    }
    #expect(pool.bytesInUse == 0)
  }

  @Test func blocksComeBackInTheirOwnSize() {
    let pool = BlockPool()
    var first = ByteBuffer(pool)
    first.append(Array(repeating: 1, count: 5000))
    let place = unsafe first.bytes.baseAddress
    first.removeAll()
    var second = ByteBuffer(pool)
    second.append(Array(repeating: 2, count: 4097))
    #expect(unsafe second.bytes.baseAddress == place)
  }

  /// What a load needs again and again stays, what it does not need goes, half each time.
  @Test func theUnusedIsGivenBack() {
    let pool = BlockPool()
    func use(_ count: Int) {
      let blocks = (0..<count).map { _ in pool.take(4096) }
      for block in blocks { pool.give(block) }
    }
    use(100)
    #expect(pool.trim() == 0, "all has been in use")
    use(20)
    #expect(pool.trim() == 40 * 4096)
    use(60)
    #expect(pool.trim() == 0)
    var left = 60
    while left > 1 {
      #expect(pool.trim() == left / 2 * 4096)
      left -= left / 2
    }
    #expect(pool.trim() == 0, "one stays")
    #expect(pool.bytesInUse == 0)
  }
}
