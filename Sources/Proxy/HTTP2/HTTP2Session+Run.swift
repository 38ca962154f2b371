internal import Reactor

/// DATA of one stream in the making: many messages behind one frame header.
struct DataRun: ~Copyable {
  fileprivate let position: Int
  fileprivate let stream: UInt32
  /// Bytes that may still be appended.
  fileprivate(set) var room: Int
  /// What gives out first is the room in the output, not a window.
  fileprivate let isBoundByOutput: Bool
  /// Where the frame that is being filled begins in the output; negative while there is none.
  fileprivate var frame = -1
  fileprivate var frameBytes = 0
  fileprivate var sent = 0
}

/// Sending without a copy in between and with a frame for many messages, for whoever makes them on the spot.
extension HTTP2Session {
  /// Begins to write DATA for a stream; nil when it is gone. Nothing else may be done with the session until `endData`.
  mutating func beginData(_ stream: UInt32) -> DataRun? {
    guard let position = openPosition(stream) else { return nil }
    let isOvertaking = lineFirst != 0 && turn != stream
    let space = isOvertaking || outputIsFull ? 0 : Limits.http2OutputBytes &- output.count
    let window = min(sendWindow, Int(streams[position].sendWindow))
    return DataRun(
      position: position, stream: stream, room: max(0, min(space, window)),
      isBoundByOutput: !isOvertaking && space < window)
  }

  /// Appends bytes, at most as many as there is room for.
  mutating func appendData(_ run: inout DataRun, _ bytes: UnsafeRawBufferPointer) {
    precondition(bytes.count <= run.room)
    var rest = unsafe bytes
    while rest.count > 0 {
      let left = prepareFrame(&run)
      let piece = unsafe rest.first(left)
      unsafe output.append(piece)
      advance(&run, piece.count)
      unsafe rest = rest.from(piece.count)
    }
  }

  /// Lets `fill` write at most `size` bytes and say how many; only when they fit the frame that is being filled.
  mutating func fillData(
    _ run: inout DataRun, _ size: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Int
  ) -> Bool {
    guard size <= run.room, prepareFrame(&run) >= size else { return false }
    let count = unsafe fill(output.reserve(size))
    precondition(count <= size)
    output.commit(count)
    advance(&run, count)
    return true
  }

  /// Ends the run.
  ///
  /// - Parameter isBlocked: there is more; `writable` follows when the stream can take some.
  mutating func endData(_ run: consuming DataRun, isBlocked: Bool) {
    closeFrame(&run)
    if run.sent > 0 {
      strikesForgiven = true
      sendWindow &-= run.sent
      streams[run.position].sendWindow &-= Int32(run.sent)
    }
    guard isBlocked else { return }
    if streams[run.position].sendWindow > 0 {
      if run.isBoundByOutput { outputIsFull = true }
      joinLine(run.position)
    } else {
      streams[run.position].flags.insert(.waitsForWindow)
    }
  }

  /// Room in the frame that is being filled, which is begun if need be.
  private mutating func prepareFrame(_ run: inout DataRun) -> Int {
    if run.frame >= 0, run.frameBytes == Limits.http2FrameBytes { closeFrame(&run) }
    if run.frame < 0 {
      run.frame = output.count
      _ = unsafe output.reserve(HTTP2FrameHeader.size)
      output.commit(HTTP2FrameHeader.size)
      produced &+= UInt64(HTTP2FrameHeader.size)
    }
    return Limits.http2FrameBytes &- run.frameBytes
  }

  private func advance(_ run: inout DataRun, _ count: Int) {
    run.frameBytes &+= count
    run.sent &+= count
    run.room &-= count
  }

  /// Now that its length is known, the frame gets its header.
  private mutating func closeFrame(_ run: inout DataRun) {
    guard run.frame >= 0 else { return }
    let header = HTTP2FrameHeader(
      length: run.frameBytes, type: FrameType.data, flags: 0, stream: run.stream)
    let place = unsafe UnsafeMutableRawBufferPointer(rebasing: output.mutableBytes[run.frame...])
    unsafe header.write(to: place)
    produced &+= UInt64(run.frameBytes)
    run.frame = -1
    run.frameBytes = 0
  }
}
