internal import Reactor

/// Header blocks received.
extension HTTP2Session {
  mutating func takeHeaders(_ payload: UnsafeRawBufferPointer) -> Step {
    var fragment = unsafe payload
    var padding = 0
    if frame.has(FrameFlag.padded) {
      guard let length = unsafe fragment.first else {
        return fail(.frameSizeError, "a frame has the wrong size")
      }
      padding = Int(length)
      unsafe fragment = fragment.from(1)
    }
    if frame.has(FrameFlag.priority) {
      guard fragment.count >= 5 else { return fail(.frameSizeError, "a frame has the wrong size") }
      unsafe fragment = fragment.from(5)
    }
    guard padding <= fragment.count else { return fail(.protocolError, "padding is longer than its frame") }
    unsafe fragment = fragment.first(fragment.count &- padding)
    let endsStream = frame.has(FrameFlag.endStream)
    if frame.has(FrameFlag.endHeaders) { return unsafe takeBlock(fragment, endsStream) }
    blockStream = frame.stream
    blockEndsStream = endsStream
    continuations = 0
    unsafe block.append(fragment)
    return .again
  }

  mutating func takeContinuation(_ payload: UnsafeRawBufferPointer) -> Step {
    guard unsafe block.count &+ payload.count <= context.blockLimit else {
      return fail(.enhanceYourCalm, "a header block is too long")
    }
    unsafe block.append(payload)
    guard frame.has(FrameFlag.endHeaders) else { return .again }
    blockStream = 0
    let step = unsafe takeBlock(block.bytes, blockEndsStream)
    block.removeAll()
    return step
  }

  private mutating func takeBlock(_ bytes: UnsafeRawBufferPointer, _ endsStream: Bool) -> Step {
    let id = frame.stream
    if let position = streams.find(id) {
      let isHead = role == .client && !streams[position].flags.contains(.headSeen)
      guard let verdict = unsafe decode(bytes, as: isHead ? .response : .trailers) else { return .again }
      if streams[position].flags.contains(.peerEnded) { return streamError(position, .streamClosed) }
      if let code = objection(verdict) { return streamError(position, code) }
      return isHead
        ? takeResponse(position, verdict, endsStream) : takeTrailers(position, endsStream)
    }
    if isIdle(id) {
      guard role == .server, id & 1 == 1 else { return fail(.protocolError, "HEADERS on an idle stream") }
      highestPeerStream = id
      // Nobody will answer a stream above the GOAWAY, but its fields may be in the table.
      let block = id > lastAccepted ? HeaderBlock.discarded : .request
      guard let verdict = unsafe decode(bytes, as: block) else { return .again }
      return id > lastAccepted ? noiseOnly() : takeRequest(id, verdict, endsStream)
    }
    guard unsafe decode(bytes, as: .discarded) != nil else { return .again }
    guard role == .client || id > lastAccepted || wasReset(id) else {
      return fail(.streamClosed, "HEADERS on a closed stream")
    }
    return noiseOnly()
  }

  private mutating func noiseOnly() -> Step {
    _ = admitNoise()
    return .again
  }

  /// Nil when the connection has failed.
  private mutating func decode(_ bytes: UnsafeRawBufferPointer, as block: HeaderBlock) -> HeaderDecoder
    .Verdict?
  {
    let context = unsafe context
    let verdict = unsafe context.headers.decode(
      bytes, as: block, with: &decoder, limit: context.settings.maxHeaderListBytes)
    guard verdict.outcome != .broken else {
      _ = fail(.compressionError, "a header block cannot be decoded")
      return nil
    }
    return verdict
  }

  private mutating func objection(_ verdict: HeaderDecoder.Verdict) -> HTTP2Code? {
    switch verdict.outcome {
    case .fine: return nil
    case .oversized:
      unsafe context.counters.oversizedHeaders &+= 1
      // What gRPC clients read as "resource exhausted".
      return .enhanceYourCalm
    case .malformed, .broken: return .protocolError
    }
  }

  private mutating func takeRequest(_ id: UInt32, _ verdict: HeaderDecoder.Verdict, _ endsStream: Bool)
    -> Step
  {
    lastPeerStream = id
    if unsafe streams.count >= Int(context.settings.maxConcurrentStreams) {
      unsafe context.counters.refusedStreams &+= 1
      return refuse(id, .refusedStream)
    }
    if let code = objection(verdict) { return refuse(id, code) }
    if endsStream, verdict.contentLength > 0 { return refuse(id, .protocolError) }
    var stream = newStream(id)
    stream.flags = endsStream ? [.headSeen, .peerEnded] : [.headSeen]
    stream.bodyLeft = verdict.contentLength
    _ = streams.insert(stream)
    return .event(.headers(stream: id, user: nil, endStream: endsStream))
  }

  /// Resets a stream that the owner never hears of.
  private mutating func refuse(_ id: UInt32, _ code: HTTP2Code) -> Step {
    if code != .refusedStream { unsafe context.counters.streamErrors &+= 1 }
    if admitReset(), admitAnswer(HTTP2FrameHeader.size + 4) {
      writeReset(id, code)
      remember(id)
    }
    return .again
  }

  private mutating func takeResponse(
    _ position: Int, _ verdict: HeaderDecoder.Verdict, _ endsStream: Bool
  ) -> Step {
    if verdict.status < 200 {
      // RFC 9113 section 8.1: an interim response is not the end of anything.
      return endsStream ? streamError(position, .protocolError) : noiseOnly()
    }
    if endsStream, verdict.contentLength > 0 { return streamError(position, .protocolError) }
    streams[position].flags.insert(.headSeen)
    streams[position].bodyLeft = verdict.contentLength
    let (id, user) = (streams[position].id, streams[position].user)
    if endsStream { endPeer(position) }
    return .event(.headers(stream: id, user: user, endStream: endsStream))
  }

  private mutating func takeTrailers(_ position: Int, _ endsStream: Bool) -> Step {
    guard endsStream, streams[position].bodyLeft <= 0 else { return streamError(position, .protocolError) }
    let (id, user) = (streams[position].id, streams[position].user)
    endPeer(position)
    return .event(.trailers(stream: id, user: user))
  }
}
