internal import Reactor

/// The life of streams, and the line of those that wait.
extension HTTP2Session {
  func newStream(_ id: UInt32) -> HTTP2Stream {
    var stream = HTTP2Stream()
    stream.id = id
    stream.sendWindow = peerStreamWindow
    stream.receiveWindow = streamWindow
    stream.receiveSize = streamWindow
    return stream
  }

  /// The peer has sent its last frame on the stream.
  mutating func endPeer(_ position: Int) {
    streams[position].flags.insert(.peerEnded)
    if streams[position].flags.contains(.ended) { close(position) }
  }

  /// We have.
  mutating func end(_ position: Int) {
    leaveLine(position)
    streams[position].flags.remove(.waitsForWindow)
    streams[position].flags.insert(.ended)
    if streams[position].flags.contains(.peerEnded) { close(position) }
  }

  /// Takes the stream out of the table.
  mutating func close(_ position: Int) {
    leaveLine(position)
    streams.remove(position)
  }

  /// Ends a stream on which the peer broke the protocol (RFC 9113 section 5.4.2).
  mutating func streamError(_ position: Int, _ code: HTTP2Code) -> Step {
    guard admitReset(), admitAnswer(HTTP2FrameHeader.size + 4) else { return .again }
    unsafe context.counters.streamErrors &+= 1
    let (id, user) = (streams[position].id, streams[position].user)
    close(position)
    writeReset(id, code)
    remember(id)
    return .event(.reset(stream: id, user: user, code))
  }

  /// Notes that we reset a stream, on which the peer may not know it yet.
  mutating func remember(_ id: UInt32) {
    resets[resetCount] = id
    resetCount = (resetCount &+ 1) & 15
  }

  func wasReset(_ id: UInt32) -> Bool {
    for position in 0..<16 where resets[position] == id { return true }
    return false
  }

  // MARK: The line

  /// The stream refused bytes because of the connection, and waits behind the others that did.
  mutating func joinLine(_ position: Int) {
    guard !streams[position].flags.contains(.inLine) else { return }
    let id = streams[position].id
    streams[position].flags.insert(.inLine)
    streams[position].ahead = lineLast
    streams[position].behind = 0
    if let last = streams.find(lineLast) { streams[last].behind = id } else { lineFirst = id }
    lineLast = id
  }

  mutating func leaveLine(_ position: Int) {
    guard streams[position].flags.contains(.inLine) else { return }
    let (ahead, behind) = (streams[position].ahead, streams[position].behind)
    streams[position].flags.remove(.inLine)
    if let before = streams.find(ahead) { streams[before].behind = behind } else { lineFirst = behind }
    if let after = streams.find(behind) { streams[after].ahead = ahead } else { lineLast = ahead }
  }

  /// The stream's own window has changed: if it waited for that, it now waits for the connection.
  mutating func wake(_ position: Int) {
    guard streams[position].flags.contains(.waitsForWindow), streams[position].sendWindow > 0 else { return }
    streams[position].flags.remove(.waitsForWindow)
    joinLine(position)
  }

  /// The stream whose turn it is, if the connection has something to give.
  mutating func nextWritable() -> HTTP2Event? {
    while sendWindow > 0, !outputIsFull, output.count < Limits.http2OutputBytes,
      let position = streams.find(lineFirst)
    {
      leaveLine(position)
      guard streams[position].sendWindow > 0 else {
        streams[position].flags.insert(.waitsForWindow)
        continue
      }
      turn = streams[position].id
      return .writable(stream: turn, user: streams[position].user)
    }
    return nil
  }
}
