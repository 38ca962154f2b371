internal import Reactor

/// Frames written to the output.
extension HTTP2Session {
  /// A frame header with its payload's room behind it; all of it counts as written.
  private mutating func writeFrame(
    _ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ length: Int,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) {
    let size = HTTP2FrameHeader.size &+ length
    let room = unsafe output.reserve(size)
    unsafe HTTP2FrameHeader(length: length, type: type, flags: flags, stream: stream).write(to: room)
    unsafe fill(UnsafeMutableRawBufferPointer(rebasing: room[HTTP2FrameHeader.size..<size]))
    output.commit(size)
    produced &+= UInt64(size)
  }

  mutating func writeFrame(_ type: UInt8, _ flags: UInt8) {
    unsafe writeFrame(type, flags, 0, 0) { _ in }
  }

  mutating func writeReset(_ stream: UInt32, _ code: HTTP2Code) {
    unsafe writeFrame(FrameType.resetStream, 0, stream, 4) { unsafe $0.put(code.rawValue, at: 0) }
  }

  mutating func writeWindowUpdate(_ stream: UInt32, _ increment: UInt32) {
    unsafe writeFrame(FrameType.windowUpdate, 0, stream, 4) { unsafe $0.put(increment, at: 0) }
  }

  mutating func writePing(_ payload: UInt64, _ flags: UInt8) {
    unsafe writeFrame(FrameType.ping, flags, 0, 8) { room in
      unsafe room.put(UInt32(truncatingIfNeeded: payload >> 32), at: 0)
      unsafe room.put(UInt32(truncatingIfNeeded: payload), at: 4)
    }
  }

  mutating func writeGoAway(last: UInt32, _ code: HTTP2Code, _ debug: StaticString) {
    let text = unsafe UnsafeRawBufferPointer(debug)
    unsafe writeFrame(FrameType.goAway, 0, 0, 8 &+ text.count) { room in
      unsafe room.put(last, at: 0)
      unsafe room.put(code.rawValue, at: 4)
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[8...]).copyMemory(from: text)
    }
  }

  /// Sends our settings, unless they are out: they come before everything else (RFC 9113 section 3.4).
  mutating func greet() {
    guard !hasGreeted else { return }
    hasGreeted = true
    sendSettings()
  }

  /// Our settings, and the connection's window, which has no setting.
  private mutating func sendSettings() {
    let settings = unsafe context.settings
    var list = InlineArray<3, (UInt16, UInt32)>(repeating: (0, 0))
    list[0] = (SettingID.initialWindowSize, UInt32(settings.streamWindow))
    list[1] = (SettingID.maxHeaderListSize, UInt32(settings.maxHeaderListBytes))
    var count = 2
    if role == .client {
      list[2] = (SettingID.enablePush, 0)
      count = 3
    } else if settings.maxConcurrentStreams < .max {
      list[2] = (SettingID.maxConcurrentStreams, settings.maxConcurrentStreams)
      count = 3
    }
    unsafe writeFrame(FrameType.settings, 0, 0, 6 &* count) { room in
      for position in 0..<count {
        let (id, value) = list[position]
        unsafe room.storeBytes(of: id.bigEndian, toByteOffset: 6 &* position, as: UInt16.self)
        unsafe room.put(value, at: 6 &* position &+ 2)
      }
    }
    let growth = settings.connectionWindow - receiveWindow
    guard growth > 0 else { return }
    receiveWindow &+= growth
    receiveSize = receiveWindow
    writeWindowUpdate(0, UInt32(growth))
  }

  /// One or more DATA frames.
  mutating func writeData(_ stream: UInt32, _ bytes: UnsafeRawBufferPointer, _ endStream: Bool) {
    var rest = unsafe bytes
    repeat {
      let piece = unsafe rest.first(Limits.http2FrameBytes)
      unsafe rest = rest.from(piece.count)
      let isLast = rest.count == 0
      unsafe writeFrame(FrameType.data, endStream && isLast ? FrameFlag.endStream : 0, stream, piece.count) {
        unsafe $0.copyMemory(from: piece)
      }
    } while rest.count > 0
  }

  // MARK: Header blocks

  /// A header block and what cuts it into frames. False when memory was short, and the connection has failed.
  mutating func writeHeaders(_ stream: UInt32, _ list: HeaderList, _ endStream: Bool) -> Bool {
    let header = HTTP2FrameHeader.size
    let bound = HeaderEncoder.bound(list)
    let frames = bound / Limits.http2FrameBytes &+ 1
    let room = unsafe output.reserve(bound &+ frames &* header)
    let place = unsafe UnsafeMutableRawBufferPointer(rebasing: room[header..<header &+ bound])
    guard let length = unsafe encode(list, to: place) else {
      output.commit(0)
      _ = fail(.internalError, "out of memory")
      return false
    }
    let size = unsafe frameBlock(room, length, stream, endStream ? FrameFlag.endStream : 0)
    output.commit(size)
    produced &+= UInt64(size)
    strikesForgiven = true
    return true
  }

  private mutating func encode(_ list: HeaderList, to room: UnsafeMutableRawBufferPointer) -> Int? {
    guard role == .server else { return unsafe encoder.encode(list, to: room, context) }
    guard owesTableSize else { return unsafe LiteralEncoder.encode(list, to: room) }
    unsafe room[0] = LiteralEncoder.tableSizeZero
    settleTableSize()
    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: room[1...])
    return unsafe 1 &+ LiteralEncoder.encode(list, to: rest)
  }

  /// Once the peer knows that we use no table, no limit of its own can make it smaller.
  private mutating func settleTableSize() {
    owesTableSize = false
    tableSizeTold = true
  }

  /// Puts headers in front of and between the pieces of the block that lies behind room for one header.
  private func frameBlock(
    _ room: UnsafeMutableRawBufferPointer, _ length: Int, _ stream: UInt32, _ flags: UInt8
  ) -> Int {
    let (header, most) = (HTTP2FrameHeader.size, Limits.http2FrameBytes)
    let frames = max(1, (length &+ most &- 1) / most)
    for piece in stride(from: frames &- 1, through: 0, by: -1) {
      let size = min(most, length &- piece &* most)
      let start = piece &* (most &+ header)
      if piece > 0 {
        let from = unsafe UnsafeRawBufferPointer(rebasing: room[(header &+ piece &* most)...]).first(size)
        unsafe UnsafeMutableRawBufferPointer(rebasing: room[(start &+ header)...]).copyMemory(from: from)
      }
      let end = piece == frames &- 1 ? FrameFlag.endHeaders : 0
      unsafe HTTP2FrameHeader(
        length: size, type: piece == 0 ? FrameType.headers : FrameType.continuation,
        flags: piece == 0 ? flags | end : end, stream: stream
      ).write(to: room, at: start)
    }
    return length &+ frames &* header
  }

  /// A header block of constant bytes.
  mutating func writeConstantBlock(
    _ stream: UInt32, _ first: UInt8?, _ text: StaticString, _ flags: UInt8
  ) {
    let sizeUpdate: UInt8? = owesTableSize ? LiteralEncoder.tableSizeZero : nil
    if owesTableSize { settleTableSize() }
    let bytes = unsafe UnsafeRawBufferPointer(text)
    let before = (sizeUpdate == nil ? 0 : 1) &+ (first == nil ? 0 : 1)
    unsafe writeFrame(FrameType.headers, flags, stream, before &+ bytes.count) { room in
      if let sizeUpdate { unsafe room[0] = sizeUpdate }
      if let first { unsafe room[before &- 1] = first }
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[before...]).copyMemory(from: bytes)
    }
    strikesForgiven = true
  }
}

extension UnsafeMutableRawBufferPointer {
  /// Writes four bytes in network order; there must be room.
  func put(_ number: UInt32, at offset: Int) {
    precondition(offset >= 0 && offset + 4 <= count)
    unsafe storeBytes(of: number.bigEndian, toByteOffset: offset, as: UInt32.self)
  }
}
