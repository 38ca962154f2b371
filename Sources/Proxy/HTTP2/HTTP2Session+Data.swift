internal import Reactor

/// DATA received. It is passed on as it comes, without waiting for the end of its frame.
extension HTTP2Session {
  /// Settles everything that the frame's length decides (RFC 9113 section 6.9.1: padding counts).
  mutating func beginData() -> Step {
    guard frame.stream != 0 else { return fail(.protocolError, "a frame is on the wrong stream") }
    guard !isIdle(frame.stream) else { return fail(.protocolError, "DATA on an idle stream") }
    guard frame.length <= receiveWindow else {
      return fail(.flowControlError, "DATA exceeds the connection's window")
    }
    let isPadded = frame.has(FrameFlag.padded)
    guard !isPadded || frame.length > 0 else { return fail(.frameSizeError, "a frame has the wrong size") }
    receiveWindow &-= frame.length
    creditConnection(frame.length)
    stage = .skip
    left = frame.length
    padding = 0
    guard let position = streams.find(frame.stream) else { return dataOnClosed() }
    let flags = streams[position].flags
    if flags.contains(.peerEnded) { return streamError(position, .streamClosed) }
    if !flags.contains(.headSeen) { return streamError(position, .protocolError) }
    if frame.length > max(0, Int(streams[position].receiveWindow)) {
      return streamError(position, .flowControlError)
    }
    streams[position].receiveWindow &-= Int32(frame.length)
    if frame.length == 0, !frame.has(FrameFlag.endStream) { return ignore() }
    stage = isPadded ? .padLength : .data
    return .again
  }

  private mutating func dataOnClosed() -> Step {
    guard admitNoise(), role == .server, frame.stream <= lastAccepted, !wasReset(frame.stream),
      admitReset(), admitAnswer(HTTP2FrameHeader.size + 4)
    else { return .again }
    writeReset(frame.stream, .streamClosed)
    remember(frame.stream)
    return .again
  }

  mutating func beginPadded(_ length: Int) -> Step {
    guard length < frame.length else { return fail(.protocolError, "padding is longer than its frame") }
    padding = length
    left = frame.length &- 1 &- length
    stage = .data
    credit(frame.stream, length &+ 1)
    if left == 0, !frame.has(FrameFlag.endStream) {
      stage = .skip
      left = padding
      _ = admitNoise()
    }
    return .again
  }

  mutating func takeData() -> Step {
    let size = unsafe min(left, input.count)
    if size == 0, left > 0 { return .starved }
    let bytes = unsafe input.first(size)
    unsafe input = input.from(size)
    left &-= size
    let isLast = left == 0
    if isLast {
      stage = .skip
      left = padding
    }
    // Its owner may have reset the stream since the frame began.
    guard let position = streams.find(frame.stream) else { return .again }
    let ends = isLast && frame.has(FrameFlag.endStream)
    if streams[position].bodyLeft >= 0 {
      streams[position].bodyLeft &-= Int64(size)
      let rest = streams[position].bodyLeft
      if rest < 0 || (ends && rest > 0) { return streamError(position, .protocolError) }
    }
    let user = streams[position].user
    if ends { endPeer(position) }
    return unsafe .event(.data(stream: frame.stream, user: user, bytes: bytes, endStream: ends))
  }
}
