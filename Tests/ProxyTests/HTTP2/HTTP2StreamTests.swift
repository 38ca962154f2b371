import Reactor
import Testing

@testable import Proxy

/// Streams and their windows, as their owner sees them.
@Suite struct HTTP2StreamTests {
  private func bytes(_ count: Int) -> [UInt8] { .init(repeating: 7, count: count) }
  private func lengths(_ frames: [TestFrame]) -> [Int] { frames.filter { $0.type == 0 }.map(\.payload.count) }

  /// A server with so many requests that have not ended.
  private func server(
    _ streams: Int, _ settings: HTTP2Settings = HTTP2TestConnection.settings(), peer: [(UInt16, UInt32)] = []
  )
    -> HTTP2TestConnection
  {
    let connection = HTTP2TestConnection.open(.server, settings, peer: peer)
    connection.feed((0..<streams).map { .headers(UInt32(2 * $0 + 1), goodRequest) })
    for stream in 0..<streams { connection.session.sendResponseHead(UInt32(2 * stream + 1)) }
    _ = connection.sent()
    return connection
  }

  private func client(_ streams: Int, peer: [(UInt16, UInt32)] = []) -> HTTP2TestConnection {
    let connection = HTTP2TestConnection.open(.client, peer: peer)
    for stream in 0..<streams {
      let handle = Handle(slot: UInt32(stream), generation: 1)
      #expect(
        connection.session.open(headerList(goodRequest), endStream: false, user: handle)
          == UInt32(2 * stream + 1))
    }
    _ = connection.sent()
    return connection
  }

  // MARK: The beginning

  @Test func greets() {
    let server = HTTP2TestConnection(.server)
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

  // MARK: Receiving

  @Test func theLastResetsAreRemembered() {
    let connection = server(17)
    for stream in 0..<17 { connection.session.reset(UInt32(2 * stream + 1), .cancel) }
    _ = connection.sent()
    for stream in 1..<17 { connection.feed([.data(UInt32(2 * stream + 1), bytes(10))]) }
    #expect(connection.sent().isEmpty)
    connection.feed([.data(1, bytes(10))])
    #expect(connection.sent() == [.reset(1, 5)])
  }

  @Test func aListOfExactlyTheLimitIsTaken() {
    var settings = HTTP2TestConnection.settings()
    settings.maxHeaderListBytes = goodRequest.reduce(0) { $0 + $1.0.utf8.count + $1.1.utf8.count + 32 }
    #expect(
      HTTP2TestConnection.open(.server, settings).feed([.headers(1, goodRequest)])
        == [.headers(1, goodRequest.map { "\($0.0): \($0.1)" }, end: false)])
    settings.maxHeaderListBytes -= 1
    let connection = HTTP2TestConnection.open(.server, settings)
    #expect(connection.feed([.headers(1, goodRequest)]).isEmpty)
    #expect(connection.context.counters.oversizedHeaders == 1)
  }

  @Test func promptCreditDoublesTheWindow() {
    var settings = HTTP2TestConnection.settings()
    settings.maxStreamWindow = 200_000
    let connection = server(1, settings)
    var windows: [UInt32] = []
    for _ in 0..<40 {
      connection.feed([.data(1, bytes(10_000))])
      connection.session.credit(1, 10_000)
      windows += connection.sent().filter { $0.type == 8 && $0.stream == 1 }.map {
        TestFrame.read($0.payload, 0)
      }
    }
    #expect(windows == [40_000 + 65_535, 70_000 + 68_930, 100_000, 100_000])
  }

  @Test func lateCreditDoesNot() {
    var settings = HTTP2TestConnection.settings()
    settings.maxStreamWindow = 200_000
    let connection = server(1, settings)
    connection.feed([TestFrame](repeating: .data(1, bytes(10_000)), count: 6))
    _ = connection.sent()
    connection.session.credit(1, 30_000)
    #expect(connection.sent().isEmpty)
    connection.session.credit(1, 10_000)
    #expect(connection.sent() == [.window(1, 40_000)])
  }

  @Test func theConnectionIsCreditedAtOnce() {
    var settings = HTTP2TestConnection.settings()
    settings.connectionWindow = 100_000
    let connection = server(2, settings)
    connection.feed([.data(1, bytes(16_000)), .data(1, bytes(16_000)), .data(1, bytes(16_000))])
    #expect(connection.sent().isEmpty)
    // Data of a stream that is gone counts as well.
    connection.session.reset(3, .cancel)
    connection.feed([.data(3, bytes(2000))])
    #expect(connection.sent() == [.reset(3, 8), .window(0, 50_000)])
  }

  @Test func dataBeyondTheConnectionsWindow() {
    // Streams bound the memory, so a well-behaved peer cannot get here: the window is credited at once.
    let connection = server(1)
    connection.session.receiveWindow = 100
    #expect(
      connection.feed([.data(1, bytes(101))])
        == [.failed(.flowControlError, "DATA exceeds the connection's window")])
  }

  @Test func aSmallerWindowHoldsFromItsAcknowledgement() {
    var settings = HTTP2TestConnection.settings()
    settings.streamWindow = 100
    let connection = HTTP2TestConnection(.server, settings)
    connection.feed(clientPreface)
    connection.feed([.settings(), .headers(1, goodRequest), .data(1, bytes(300))])
    #expect(connection.openStreams == 1)
    connection.feed([.settingsAck])
    connection.session.credit(1, 250)
    connection.feed([.data(1, [], end: false)])
    #expect(connection.openStreams == 1)
    #expect(connection.feed([.data(1, bytes(51))]) == [.reset(1, .flowControlError)])
  }

  @Test func refusedAndOversizedBlocksKeepTheTableInStep() {
    var settings = HTTP2TestConnection.settings()
    settings.maxConcurrentStreams = 1
    settings.maxHeaderListBytes = 1000
    let connection = HTTP2TestConnection.open(.server, settings)
    let new: [UInt8] = [0x40, 1, 97, 1, 98]
    connection.feed([TestFrame(type: 1, flags: 4, stream: 1, payload: TestFrame.block(goodRequest) + new)])
    #expect(connection.feed([.headers(3, goodRequest)]).isEmpty)
    #expect(connection.sent() == [.reset(3, 7)])
    #expect(connection.context.counters.refusedStreams == 1)
    let refused = TestFrame(
      type: 1, flags: 4, stream: 5, payload: TestFrame.block(goodRequest) + [0x40, 1, 99, 1, 100])
    #expect(connection.feed([refused]).isEmpty)
    // Entry 62 is the newest: what the refused stream put there.
    #expect(
      connection.feed([TestFrame(type: 1, flags: 5, stream: 1, payload: [0xBE, 0xBF])])
        == [.trailers(1, ["c: d", "a: b"])])
    connection.session.sendTrailersOK(1)
    _ = connection.sent()
    let long = TestFrame.block(goodRequest + [("x", String(repeating: "y", count: 1000))])
    #expect(
      connection.feed([TestFrame(type: 1, flags: 4, stream: 7, payload: long + [0x40, 1, 101, 1, 102])])
        .isEmpty)
    #expect(connection.sent() == [.reset(7, 11)])
    let last = TestFrame(type: 1, flags: 4, stream: 9, payload: TestFrame.block(goodRequest) + [0xBE])
    guard case .headers(9, let fields, false)? = connection.feed([last]).first else {
      Issue.record("no request")
      return
    }
    #expect(fields.last == "e: f")
  }

  // MARK: Going away

  @Test func streamsAboveTheGoAwayAreUnprocessed() {
    let connection = client(40)
    let seen = connection.feed([.goAway(41)])
    #expect(seen.first == .goAway(41, .noError))
    let lost = seen.dropFirst().compactMap { if case .unprocessed(let id) = $0 { id } else { nil } }
    #expect(lost.sorted() == stride(from: 43, to: 80, by: 2).map { $0 })
    #expect(connection.openStreams == 21)
    #expect(!connection.canOpen)
    #expect(connection.feed([.headers(41, goodResponse)]).count == 1)
    // A first GOAWAY that only announces is followed by one that means it.
    #expect(connection.feed([.goAway(39, 2)]) == [.goAway(39, .internalError), .unprocessed(41)])
  }

  @Test func anOwnerMayResetStreamsDuringTheSweep() {
    let connection = client(200)
    var lost: Set<UInt32> = []
    var reset: Set<UInt32> = []
    connection.feed(TestFrame.goAway(1).bytes) { event in
      guard case .unprocessed(let id, let user) = event else { return }
      #expect(user?.slot == id / 2 && lost.insert(id).inserted && !reset.contains(id))
      let other = (id &* 31) % 400 | 1
      if other > 1, !lost.contains(other) {
        connection.session.reset(other, .cancel)
        reset.insert(other)
      }
    }
    #expect(lost.count + reset.count == 199)
    #expect(connection.openStreams == 1)
  }

  @Test func aRefusedStreamIsUnprocessed() {
    let connection = client(2)
    #expect(connection.feed([.reset(1, 7), .reset(3, 99)]) == [.unprocessed(1), .reset(3, .internalError)])
  }

  @Test func ourGoAwayComesTwice() {
    let connection = server(1)
    connection.session.goAway(.noError, "", final: false)
    #expect(connection.sent() == [.goAway(0x7FFF_FFFF)])
    #expect(connection.feed([.headers(3, goodRequest)]).count == 1)
    connection.session.goAway(.noError, "", final: true)
    #expect(connection.sent() == [.goAway(3)])
    // Later streams are ignored, with all that belongs to them, but for the table.
    let late = TestFrame(
      type: 1, flags: 4, stream: 5, payload: TestFrame.block(goodRequest) + [0x40, 1, 97, 1, 98])
    #expect(
      connection.feed([late, .data(5, bytes(10)), .headers(5, [("x", "y")], end: true), .reset(5, 8)]).isEmpty
    )
    #expect(connection.sent().isEmpty)
    #expect(
      connection.feed([TestFrame(type: 1, flags: 5, stream: 3, payload: [0xBE])]) == [.trailers(3, ["a: b"])])
    #expect(connection.openStreams == 2)
  }

  // MARK: Opening

  @Test func opensWhatThePeerAllows() {
    let early = HTTP2TestConnection(.client)
    for _ in 0..<Limits.http2StreamsBeforeSettings {
      #expect(early.session.open(headerList(goodRequest), endStream: true, user: someHandle) != nil)
    }
    #expect(!early.canOpen)
    #expect(early.session.open(headerList(goodRequest), endStream: true, user: someHandle) == nil)
    #expect(early.feed([.settings()]) == [.settings])
    #expect(early.canOpen)

    let connection = client(2, peer: [(3, 2)])
    #expect(!connection.canOpen)
    connection.feed([.reset(1, 0)])
    #expect(connection.canOpen)
    connection.session.nextStream = 0x7FFF_FFFF
    #expect(
      connection.session.open(headerList(goodRequest), endStream: false, user: someHandle) == 0x7FFF_FFFF)
    connection.feed([.reset(3, 0)])
    #expect(!connection.canOpen, "numbers are used up")
  }

  @Test func anIdleConnectionIsSmall() {
    let connection = HTTP2TestConnection.open(.server)
    for stream in stride(from: UInt32(1), to: 21, by: 2) {
      connection.feed([.headers(stream, goodRequest), .data(stream, bytes(50), end: true)])
      connection.session.sendResponseHead(stream)
      _ = connection.send(stream, bytes(100))
      connection.session.sendTrailersOK(stream)
    }
    _ = connection.sent()
    #expect(connection.pool.bytesInUse + MemoryLayout<HTTP2Session>.size <= 1280)
    // A burst of streams does not stay.
    connection.feed((11..<100).map { .headers(UInt32(2 * $0 + 1), goodRequest) })
    connection.feed((11..<100).map { .reset(UInt32(2 * $0 + 1), 8) })
    #expect(connection.pool.bytesInUse <= 4096)
  }
}
