import Reactor
import Testing

@testable import Proxy

/// What suites about streams begin with.
protocol HTTP2StreamSuite {}

extension HTTP2StreamSuite {
  func bytes(_ count: Int) -> [UInt8] { .init(repeating: 7, count: count) }
  func lengths(_ frames: [TestFrame]) -> [Int] { frames.filter { $0.type == 0 }.map(\.payload.count) }

  /// A server with so many requests that have not ended.
  func server(
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

  func client(_ streams: Int, peer: [(UInt16, UInt32)] = []) -> HTTP2TestConnection {
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
}
