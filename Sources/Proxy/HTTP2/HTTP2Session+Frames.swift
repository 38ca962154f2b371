internal import Reactor

/// Which frames may come now, and where each goes.
extension HTTP2Session {
  /// Judges a frame by its header alone.
  mutating func beginFrame() -> Step {
    guard frame.length <= Limits.http2FrameBytes else {
      return fail(.frameSizeError, "a frame is too long")
    }
    guard peerSettingsSeen || isFirstSettings else {
      return fail(.protocolError, "the first frame is not SETTINGS")
    }
    guard blockStream == 0 || (frame.type == FrameType.continuation && frame.stream == blockStream) else {
      return fail(.protocolError, "a header block is interrupted")
    }
    switch frame.type {
    case FrameType.data: return beginData()
    case FrameType.headers: return expect(onStream: true, true)
    case FrameType.continuation: return beginContinuation()
    case FrameType.priority: return beginPriority()
    case FrameType.resetStream: return expect(onStream: true, frame.length == 4)
    case FrameType.windowUpdate: return expect(onStream: nil, frame.length == 4)
    case FrameType.ping: return expect(onStream: false, frame.length == 8)
    case FrameType.goAway: return expect(onStream: false, frame.length >= 8)
    case FrameType.settings:
      let isAcknowledgement = frame.has(FrameFlag.acknowledgement)
      return expect(onStream: false, isAcknowledgement ? frame.length == 0 : frame.length % 6 == 0)
    case FrameType.pushPromise: return fail(.protocolError, "PUSH_PROMISE is not allowed")
    default: return ignore()
    }
  }

  private var isFirstSettings: Bool {
    frame.type == FrameType.settings && !frame.has(FrameFlag.acknowledgement)
  }

  private mutating func expect(onStream: Bool?, _ sizeIsRight: Bool) -> Step {
    guard onStream.map({ $0 == (frame.stream != 0) }) ?? true else {
      return fail(.protocolError, "a frame is on the wrong stream")
    }
    guard sizeIsRight else { return fail(.frameSizeError, "a frame has the wrong size") }
    stage = .payload
    return .again
  }

  private mutating func beginContinuation() -> Step {
    guard blockStream != 0 else { return fail(.protocolError, "CONTINUATION without a header block") }
    continuations &+= 1
    guard continuations <= Limits.http2Continuations else {
      return fail(.enhanceYourCalm, "too many CONTINUATION frames")
    }
    stage = .payload
    return .again
  }

  /// Priorities are deprecated and ignored; only their size is judged.
  private mutating func beginPriority() -> Step {
    guard frame.stream != 0 else { return fail(.protocolError, "a frame is on the wrong stream") }
    guard frame.length == 5 else {
      guard let position = streams.find(frame.stream) else {
        return fail(.frameSizeError, "a frame has the wrong size")
      }
      stage = .skip
      left = frame.length
      return streamError(position, .frameSizeError)
    }
    return ignore()
  }

  /// Passes over the frame.
  mutating func ignore() -> Step {
    guard admitNoise() else { return .again }
    stage = .skip
    left = frame.length
    return .again
  }

  /// Takes the complete payload of any frame but DATA.
  mutating func take(_ payload: UnsafeRawBufferPointer) -> Step {
    switch frame.type {
    case FrameType.headers: return unsafe takeHeaders(payload)
    case FrameType.continuation: return unsafe takeContinuation(payload)
    case FrameType.resetStream: return unsafe takeReset(HTTP2Code(received: payload.number32(0)))
    case FrameType.windowUpdate: return unsafe takeWindowUpdate(payload.number32(0) & Self.mostStreamID)
    case FrameType.ping: return unsafe takePing(payload.number64(0))
    case FrameType.goAway:
      return unsafe takeGoAway(
        last: payload.number32(0) & Self.mostStreamID, HTTP2Code(received: payload.number32(4)))
    case FrameType.settings:
      if frame.has(FrameFlag.acknowledgement) { return takeSettingsAcknowledgement() }
      return unsafe takeSettings(payload)
    default: return .again
    }
  }

  /// Whether nobody has opened the stream yet: any frame but HEADERS and PRIORITY on it is an error.
  func isIdle(_ stream: UInt32) -> Bool {
    switch role {
    case .server: stream & 1 == 0 || stream > highestPeerStream
    case .client: stream & 1 == 0 || stream >= nextStream
    }
  }
}
