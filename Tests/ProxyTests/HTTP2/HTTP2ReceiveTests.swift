import Reactor
import Testing

@testable import Proxy

/// Receive windows, and streams that the peer's or our GOAWAY touches.
@Suite struct HTTP2ReceiveTests: HTTP2StreamSuite {
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
