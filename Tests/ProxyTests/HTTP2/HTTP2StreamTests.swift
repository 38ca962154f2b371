import Reactor
import Testing

@testable import Proxy

/// Streams and their windows, as their owner sees them.
@Suite struct HTTP2StreamTests: HTTP2StreamSuite {
  // MARK: The beginning

  @Test func greets() {
    // A server waits for the preface: the client might speak HTTP/1.1.
    let server = HTTP2TestConnection(.server)
    #expect(server.feed(Array(clientPreface.dropLast())).isEmpty)
    #expect(server.sentBytes().isEmpty)
    #expect(server.feed(Array(clientPreface.suffix(1))).isEmpty)
    #expect(server.sentBytes().starts(with: [0, 0, 18, 4, 0]))
    let client = HTTP2TestConnection(.client)
    let bytes = client.sentBytes()
    #expect(bytes.starts(with: clientPreface + [0, 0, 18, 4, 0]))
    #expect(bytes.suffix(13) == [0, 0, 4, 8, 0, 0, 0, 0, 0] + TestFrame.number((1 << 20) - 65_535))
  }

  @Test(arguments: [0, 5, 23]) func aWrongPrefaceIsTheEnd(_ place: Int) {
    let connection = HTTP2TestConnection(.server)
    var wrong = clientPreface
    wrong[place] ^= 1
    #expect(connection.feed(wrong) == [.failed(.protocolError, "no HTTP/2 preface")])
    #expect(connection.isFailed)
    #expect(connection.sent().last?.goAwayCode == 1)
    #expect(connection.feed(clientPreface).isEmpty)
  }

  @Test(arguments: [HTTP2Role.server, .client]) func theFirstFrameIsSettings(_ role: HTTP2Role) {
    for first in [TestFrame.ping(), .settingsAck, .window(0, 5)] {
      let connection = HTTP2TestConnection(role)
      if role == .server { connection.feed(clientPreface) }
      #expect(connection.feed([first]) == [.failed(.protocolError, "the first frame is not SETTINGS")])
    }
  }

  @Test func anyCutIsTheSame() {
    let frames: [TestFrame] = [
      .settings([(4, 70_000)]), .settingsAck, .headers(1, goodRequest), .data(1, bytes(30)),
      TestFrame(type: 0, flags: 9, stream: 1, payload: [3] + bytes(5) + [0, 0, 0]),
      .headers(3, goodRequest, end: true),
      .window(3, 5), .ping(5, ack: true), .reset(3, 8),
    ]
    let all = clientPreface + frames.flatMap(\.bytes)
    for size in [1, 2, 7, 23, 100] {
      let connection = HTTP2TestConnection(.server)
      var seen: [SeenEvent] = []
      var place = 0
      while place < all.count {
        seen += connection.feed(Array(all[place..<min(place + size, all.count)]))
        place += size
      }
      var body: [UInt8] = []
      var ends = false
      let others = seen.filter { event in
        guard case .data(1, let piece, let end) = event else { return true }
        body += piece
        ends = ends || end
        return false
      }
      #expect(body == bytes(35) && ends)
      let plain = goodRequest.map { "\($0.0): \($0.1)" }
      #expect(
        others == [
          .settings, .headers(1, plain, end: false), .headers(3, plain, end: true), .pong(5),
          .reset(3, .cancel),
        ])
      #expect(connection.pool.bytesInUse < 4096)
    }
  }

  @Test func dataDoesNotWaitForItsFrame() {
    let connection = server(1)
    let frame = TestFrame.data(1, bytes(1000), end: true).bytes
    #expect(connection.feed(Array(frame[..<109])) == [.data(1, bytes(100), end: false)])
    #expect(connection.feed(Array(frame[109..<110])) == [.data(1, bytes(1), end: false)])
    // The owner loses interest in the middle of the frame.
    connection.session.reset(1, .cancel)
    #expect(connection.feed(Array(frame[110...])).isEmpty)
    #expect(connection.feed([.headers(3, goodRequest)]).count == 1)
  }

  // MARK: Sending

  @Test func waitingStreamsTakeTurns() {
    let connection = server(3, peer: [(4, 1 << 20)])
    #expect(connection.send(1, bytes(100_000)) == 65_535)
    #expect(connection.send(3, bytes(100)) == 0)
    #expect(connection.send(5, bytes(100)) == 0)
    #expect(lengths(connection.sent()) == [16_384, 16_384, 16_384, 16_383])
    #expect(connection.feed([.window(0, 50)]) == [.writable(1), .writable(3), .writable(5)])
    // Nobody took it, so nobody waits; who sends now may.
    #expect(connection.send(3, bytes(100)) == 50)
    #expect(connection.send(5, bytes(10)) == 0)
    let now = connection.now
    connection.feed(TestFrame.window(0, 150).bytes) { event in
      guard case .writable(let stream, _) = event else { return }
      if stream == 3 {
        // Another one may not overtake those that wait.
        #expect(connection.send(1, bytes(1000)) == 0)
        #expect(connection.send(3, bytes(60)) == 60)
      } else if stream == 5 {
        #expect(connection.send(5, bytes(10)) == 10)
      } else {
        #expect(connection.send(1, bytes(1000)) == 80)
      }
    }
    #expect(connection.session.sendWindow == 0)
    #expect(connection.session.next(now) == nil)
  }

  @Test func aStreamsOwnWindowBlocksNobodyElse() {
    let connection = server(2, peer: [(4, 100)])
    #expect(connection.send(1, bytes(150), end: true) == 100)
    #expect(connection.send(3, bytes(80), end: false) == 80)
    #expect(connection.sent().allSatisfy { $0.flags == 0 })
    #expect(connection.feed([.window(0, 100)]).isEmpty)
    #expect(connection.feed([.window(1, 60)]) == [.writable(1)])
    #expect(connection.send(1, bytes(50), end: true) == 50)
    #expect(connection.sent() == [.data(1, bytes(50), end: true)])
  }

  @Test func windowsFallBelowZero() {
    let connection = server(1, peer: [(4, 100)])
    #expect(connection.send(1, bytes(150)) == 100)
    _ = connection.sent()
    #expect(connection.feed([.settings([(4, 20)])]) == [.settings])
    #expect(connection.feed([.window(1, 80)]).isEmpty)
    #expect(connection.send(1, bytes(1)) == 0)
    #expect(connection.feed([.window(1, 5)]) == [.writable(1)])
    #expect(connection.send(1, bytes(50)) == 5)
    #expect(connection.feed([.settings([(4, 30)])]) == [.settings, .writable(1)])
    #expect(connection.send(1, bytes(50)) == 10)
  }

  @Test func aSlowSocketPushesBack() {
    let connection = server(2, peer: [(4, 10 << 20)])
    connection.feed([.window(0, 10 << 20)])
    let limit = Limits.http2OutputBytes
    let taken = connection.send(1, bytes(1 << 20))
    #expect(taken > limit - 1000 && taken <= limit)
    #expect(connection.send(3, bytes(10)) == 0)
    // What is no data still goes.
    connection.session.sendTrailersOK(3)
    connection.session.output.consume(1000)
    connection.session.outputDrained()
    #expect(connection.events().isEmpty)
    connection.session.output.consume(limit / 2)
    connection.session.outputDrained()
    #expect(connection.events() == [.writable(1)])
  }

  @Test func anEndedStreamLeavesTheLine() {
    let connection = server(2, peer: [(4, 1 << 20)])
    #expect(connection.send(1, bytes(65_535)) == 65_535)
    #expect(connection.send(3, bytes(5)) == 0)
    #expect(connection.send(1, bytes(5)) == 0)
    connection.session.reset(3, .cancel)
    connection.session.sendHeaders(1, headerList([("grpc-status", "1")]), endStream: true)
    #expect(!connection.hasWaitingStreams)
    #expect(connection.feed([.window(0, 5)]).isEmpty)
    #expect(connection.send(1, bytes(5)) == 5, "a stream that is over swallows")
  }

  @Test func aTableThatMustBeSmallerIsAnnouncedOnce() {
    let connection = server(0, peer: [(1, 0)])
    connection.feed([.headers(1, goodRequest), .headers(3, goodRequest)])
    connection.session.sendResponseHead(1)
    connection.session.sendHeaders(3, headerList(goodResponse), endStream: false)
    let frames = connection.sent()
    #expect(frames[0].payload.first == 0x20 && frames[0].payload[1] == 0x88)
    #expect(frames[1].payload.first == 0x88)
    connection.feed([.settings([(1, 4096)]), .settings([(1, 0)])])
    connection.session.sendTrailersOK(1)
    #expect(connection.sent().last?.payload.first == 0)
  }

  @Test func aStreamInTheLineMayLoseItsOwnWindow() {
    let connection = server(2, peer: [(4, 1 << 20)])
    #expect(connection.send(1, bytes(65_535)) == 65_535)
    #expect(connection.send(3, bytes(100)) == 0)
    connection.feed([.settings([(4, 0)])])
    #expect(connection.feed([.window(0, 1000)]).isEmpty)
    #expect(connection.feed([.window(3, 50)]) == [.writable(3)])
    #expect(connection.send(3, bytes(100)) == 50)
  }

  @Test func longBlocksAreCut() {
    for size in [10, 16_370, 16_384, 32_768, 50_000] {
      let connection = server(1)
      let value = String(repeating: "v", count: size)
      connection.session.sendHeaders(1, headerList([("x", value)]), endStream: true)
      let frames = connection.sent()
      #expect(frames.first?.type == 1 && frames.dropFirst().allSatisfy { $0.type == 9 })
      #expect(frames.dropLast().allSatisfy { $0.payload.count == 16_384 })
      #expect(
        frames.map(\.flags) == frames.indices.map { ($0 == 0 ? 1 : 0) | ($0 == frames.count - 1 ? 4 : 0) })
      #expect(frames.flatMap(\.payload) == TestFrame.block([("x", value)]))
    }
  }
}
