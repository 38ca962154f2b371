import Reactor
import Testing

@testable import Proxy

/// Messages written into runs of DATA frames, whatever the windows: what arrives is each message, whole and in order.
@Suite struct WatchMessageTests: HTTP2StreamSuite {
  private func bodies(_ sizes: [Int]) -> [[UInt8]] {
    sizes.enumerated().map { place, size in (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ place) } }
  }

  private func expected(_ bodies: [[UInt8]], _ ids: [Int64]) -> [UInt8] {
    zip(bodies, ids).flatMap { body, id -> [UInt8] in
      let message = body + (id == 0 ? [] : Wire.field(2, number: UInt64(bitPattern: id)))
      let length = (0..<4).map { UInt8(truncatingIfNeeded: message.count >> (24 - 8 * $0)) }
      return [0] + length + message
    }
  }

  /// Writes all, in runs, as the peer opens its window bit by bit, and gives back what it got.
  private func play(_ bodies: [[UInt8]], _ ids: [Int64], window: UInt32, steps: [UInt32]) -> [UInt8] {
    let connection = server(1, peer: [(4, window)])
    var received: [UInt8] = []
    var next = 0
    var sent = 0
    var step = 0
    while next < bodies.count {
      guard var run = connection.session.beginData(1) else { return [] }
      while next < bodies.count {
        let isWhole = bodies[next].withUnsafeBytes { body in
          let message = WatchMessage(body, id: ids[next])
          if sent == 0, message.write(&run, &connection.session) { return true }
          return message.write(&run, &connection.session, from: &sent)
        }
        guard isWhole else { break }
        next += 1
        sent = 0
      }
      connection.session.endData(run, isBlocked: next < bodies.count)
      for frame in connection.sent() where frame.type == 0 {
        #expect(frame.payload.count <= 16 << 10 && frame.stream == 1)
        received += frame.payload
      }
      guard next < bodies.count else { break }
      connection.feed([.window(1, steps[step % steps.count]), .window(0, steps[step % steps.count])])
      step += 1
      guard step < 100_000 else { break }
    }
    return received
  }

  @Test(arguments: [1, 5, 9, 100, 4096, 70_000] as [UInt32])
  func anyWindow(_ step: UInt32) {
    let bodies = bodies([0, 1, 200, 3, 16_384, 16_380, 40_000, 17])
    let ids: [Int64] = [0, 1, 127, 128, 300_000, -1, 5, .max]
    #expect(play(bodies, ids, window: 10, steps: [step]) == expected(bodies, ids))
  }

  @Test func manyMessagesShareAFrame() {
    let connection = server(1)
    guard var run = connection.session.beginData(1) else {
      Issue.record("the stream is gone")
      return
    }
    let body = [UInt8](repeating: 9, count: 100)
    for id in 1...50 as ClosedRange<Int64> {
      let isWhole = body.withUnsafeBytes { WatchMessage($0, id: id).write(&run, &connection.session) }
      #expect(isWhole)
    }
    connection.session.endData(run, isBlocked: false)
    let frames = connection.sent()
    #expect(frames.count == 1)
    #expect(frames[0].payload == expected(Array(repeating: body, count: 50), Array(1...50)))
  }

  @Test func nothingForAStreamThatIsGone() {
    let connection = server(1)
    connection.feed([.reset(1, 8)])
    let isGone = connection.session.beginData(1) == nil
    #expect(isGone)
  }
}
