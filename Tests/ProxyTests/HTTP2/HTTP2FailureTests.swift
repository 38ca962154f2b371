import Reactor
import Testing

@testable import Proxy

/// What a connection that fails leaves to its owner.
@Suite struct HTTP2FailureTests {
  private func names(_ connection: HTTP2TestConnection) -> Int {
    var count = 0
    connection.session.forEachUser { _ in count += 1 }
    return count
  }

  /// Feeds something that is no frame of a stream, and stops at the failure.
  private func fail(_ connection: HTTP2TestConnection) -> Bool {
    let wrong = TestFrame.data(0, [1]).bytes
    return wrong.withUnsafeBytes { bytes in
      connection.session.receive(bytes)
      while let event = connection.session.next(connection.now) {
        if case .failed = event { return true }
      }
      return false
    }
  }

  @Test func streamsAreNamedWhenItIsTold() {
    let connection = HTTP2TestConnection.open(.client)
    for slot in UInt32(0)..<3 {
      let user = Handle(slot: slot, generation: 1)
      _ = connection.session.open(.of(goodRequest), endStream: true, user: user)
    }
    _ = connection.sent()
    #expect(fail(connection))
    #expect(names(connection) == 3)
    #expect(connection.events().isEmpty)
    #expect(names(connection) == 0)
    #expect(connection.openStreams == 0)
  }

  @Test func nothingIsWrittenBehindItsGoAway() {
    let connection = HTTP2TestConnection.open(.server)
    connection.feed([.headers(1, goodRequest), .data(1, [1, 2, 3])])
    connection.session.setUser(1, someHandle)
    #expect(fail(connection))
    connection.session.sendHeaders(1, .of(goodResponse), endStream: false)
    #expect(connection.send(1, [1], end: true) == 1)
    connection.session.credit(1, 3)
    connection.session.reset(1, .cancel)
    #expect(connection.sent().map(\.type) == [7])
    #expect(names(connection) == 1)
  }
}
