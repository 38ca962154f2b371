internal import Reactor

/// What the owner does.
extension HTTP2Session {
  // MARK: Streams

  /// Whether `open` would succeed (client).
  var canOpen: Bool {
    role == .client && stage != .failed && !goAwayReceived && !goAwaySent && nextStream <= Self.mostStreamID
      && streams.count < Int(peerMaxConcurrent)
  }

  /// Whether a stream was ever opened (client).
  var hasOpened: Bool { nextStream > 1 }

  /// Gives the stream its owner's name, which comes with its events.
  mutating func setUser(_ stream: UInt32, _ user: Handle) {
    if let position = streams.find(stream) { streams[position].user = user }
  }

  /// Sends a request (client). Nil when the peer, the stream numbers or a GOAWAY forbid it.
  mutating func open(_ list: HeaderList, endStream: Bool, user: Handle) -> UInt32? {
    guard canOpen else { return nil }
    let id = nextStream
    guard writeHeaders(id, list, endStream) else { return nil }
    nextStream &+= 2
    var stream = newStream(id)
    stream.user = user
    if endStream { stream.flags.insert(.ended) }
    _ = streams.insert(stream)
    return id
  }

  /// Sends the head of a response or trailers, behind all data.
  mutating func sendHeaders(_ stream: UInt32, _ list: HeaderList, endStream: Bool) {
    guard let position = openPosition(stream), writeHeaders(stream, list, endStream) else { return }
    if endStream { end(position) }
  }

  /// Sends the head that gRPC responses have.
  mutating func sendResponseHead(_ stream: UInt32) {
    guard openPosition(stream) != nil else { return }
    writeConstantBlock(stream, LiteralEncoder.statusOK, LiteralEncoder.contentType, FrameFlag.endHeaders)
  }

  /// Sends the trailers of a call that went well.
  mutating func sendTrailersOK(_ stream: UInt32) {
    guard let position = openPosition(stream) else { return }
    writeConstantBlock(
      stream, nil, LiteralEncoder.trailersOK, FrameFlag.endHeaders | FrameFlag.endStream)
    end(position)
  }

  /// Sends as much as the windows and the room in the output allow, and says how much that was. `writable` follows
  /// when it was less; the end of the stream goes out when it was all. A stream that is gone swallows everything.
  mutating func send(_ stream: UInt32, _ bytes: UnsafeRawBufferPointer, endStream: Bool) -> Int {
    guard let position = openPosition(stream) else { return bytes.count }
    let taken = room(position, bytes.count)
    let isAll = taken == bytes.count
    if isAll ? taken > 0 || endStream : taken > 0 {
      unsafe writeData(stream, bytes.first(taken), endStream && isAll)
      strikesForgiven = true
      sendWindow &-= taken
      streams[position].sendWindow &-= Int32(taken)
    }
    if !isAll {
      if streams[position].sendWindow > 0 {
        joinLine(position)
      } else {
        streams[position].flags.insert(.waitsForWindow)
      }
    } else if endStream {
      end(position)
    }
    return taken
  }

  /// Ends the stream behind data that have all been taken.
  mutating func sendEnd(_ stream: UInt32) {
    _ = unsafe send(stream, UnsafeRawBufferPointer(start: nil, count: 0), endStream: true)
  }

  /// How many of `wanted` bytes may leave now.
  private mutating func room(_ position: Int, _ wanted: Int) -> Int {
    let isOvertaking = lineFirst != 0 && turn != streams[position].id
    guard wanted > 0, !isOvertaking else { return 0 }
    let window = min(wanted, sendWindow, Int(streams[position].sendWindow))
    let space = outputIsFull ? 0 : Limits.http2OutputBytes &- output.count
    if space < window { outputIsFull = true }
    return max(0, min(window, space))
  }

  /// Ends the stream at once. Nothing happens when it is gone already.
  mutating func reset(_ stream: UInt32, _ code: HTTP2Code) {
    guard stage != .failed, let position = streams.find(stream) else { return }
    close(position)
    writeReset(stream, code)
    remember(stream)
  }

  func openPosition(_ stream: UInt32) -> Int? {
    guard stage != .failed, let position = streams.find(stream), !streams[position].flags.contains(.ended)
    else { return nil }
    return position
  }

  // MARK: Receive windows

  /// The owner has passed on `count` bytes of DATA. The peer is told when half a window has come together.
  mutating func credit(_ stream: UInt32, _ count: Int) {
    guard stage != .failed, let position = streams.find(stream), !streams[position].flags.contains(.peerEnded)
    else { return }
    let given = streams[position].receiveSize &- streams[position].receiveWindow
    let outstanding = given &- streams[position].creditDue
    assert(count >= 0 && count <= Int(outstanding), "more is credited than was received")
    let credited = Int32(clamping: max(0, min(count, Int(outstanding))))
    streams[position].creditDue &+= credited
    guard streams[position].creditDue >= streams[position].receiveSize / 2, streams[position].creditDue > 0
    else { return }
    if credited == outstanding { growWindow(position) }
    let due = streams[position].creditDue
    streams[position].receiveWindow &+= due
    streams[position].creditDue = 0
    writeWindowUpdate(stream, UInt32(due))
  }

  /// The owner keeps up with the peer: what limits the peer is the window.
  private mutating func growWindow(_ position: Int) {
    let size = Int(streams[position].receiveSize)
    let growth = unsafe min(size, context.settings.maxStreamWindow &- size)
    guard growth > 0 else { return }
    streams[position].receiveSize &+= Int32(growth)
    streams[position].creditDue &+= Int32(growth)
  }

  /// The connection's window only keeps a peer from sending without bound to streams that we no longer know.
  mutating func creditConnection(_ count: Int) {
    creditDue &+= count
    guard creditDue >= receiveSize / 2 else { return }
    receiveWindow &+= creditDue
    writeWindowUpdate(0, UInt32(creditDue))
    creditDue = 0
  }

  // MARK: The connection

  /// The socket took bytes of the output. Streams that wait may go on, so call `next`. They do so when half of the
  /// output is gone: with every little that a slow socket takes they would write little frames.
  mutating func outputDrained() {
    patientBytes = 0
    if output.count <= Limits.http2OutputBytes / 2 { outputIsFull = false }
  }

  /// Tells the peer to open no more streams. Not `final`: those that are under way will still be served.
  mutating func goAway(_ code: HTTP2Code, _ debug: StaticString, final: Bool) {
    guard stage != .failed else { return }
    greet()
    if final { lastAccepted = min(lastAccepted, lastPeerStream) }
    goAwaySent = true
    writeGoAway(last: final ? lastAccepted : Self.mostStreamID, code, debug)
  }

  /// Asks the peer for a sign of life; `pong` brings the payload back.
  mutating func ping(_ payload: UInt64) {
    guard stage != .failed else { return }
    greet()
    writePing(payload, 0)
  }
}
