internal import Reactor

/// A message for one watcher: gRPC's prefix, what all watchers get, the watch's number.
@safe struct WatchMessage {
  private let body: UnsafeRawBufferPointer
  private let id: Int64
  private let idBytes: Int

  init(_ body: UnsafeRawBufferPointer, id: Int64) {
    unsafe self.body = body
    self.id = id
    idBytes = id == 0 ? 0 : 1 + ProtoSize.varint(UInt64(bitPattern: id))
  }

  private var length: Int { unsafe body.count + idBytes }

  /// Writes it in one piece if there is room in the frame.
  func write(_ run: inout DataRun, _ http2: inout HTTP2Session) -> Bool {
    unsafe http2.fillData(&run, GRPCMessage.prefix + length) { room in
      unsafe writePrefix(room)
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: room[GRPCMessage.prefix...])
      unsafe rest.copyMemory(from: body)
      unsafe writeID(UnsafeMutableRawBufferPointer(rebasing: rest[body.count...]))
      return GRPCMessage.prefix + length
    }
  }

  /// Writes what fits, from byte `sent` on; true when that was all.
  func write(_ run: inout DataRun, _ http2: inout HTTP2Session, from sent: inout Int) -> Bool {
    unsafe withUnsafeTemporaryAllocation(byteCount: 16, alignment: 8) { edge in
      unsafe writePrefix(edge)
      unsafe Self.append(
        UnsafeRawBufferPointer(rebasing: edge[..<GRPCMessage.prefix]), at: 0, &run, &http2, &sent)
      unsafe Self.append(body, at: GRPCMessage.prefix, &run, &http2, &sent)
      unsafe writeID(edge)
      unsafe Self.append(
        UnsafeRawBufferPointer(rebasing: edge[..<idBytes]), at: GRPCMessage.prefix + body.count, &run,
        &http2, &sent)
    }
    return sent == GRPCMessage.prefix + length
  }

  /// Appends what is left of a piece that lies at `start` in the message.
  private static func append(
    _ piece: UnsafeRawBufferPointer, at start: Int, _ run: inout DataRun, _ http2: inout HTTP2Session,
    _ sent: inout Int
  ) {
    guard sent >= start, sent < start + piece.count else { return }
    let rest = unsafe UnsafeRawBufferPointer(rebasing: piece[(sent - start)...])
    let size = min(rest.count, run.room)
    unsafe http2.appendData(&run, UnsafeRawBufferPointer(rebasing: rest[..<size]))
    sent += size
  }

  private func writePrefix(_ room: UnsafeMutableRawBufferPointer) {
    unsafe room[0] = 0
    unsafe room.storeBytes(
      of: UInt32(truncatingIfNeeded: length).bigEndian, toByteOffset: 1, as: UInt32.self)
  }

  private func writeID(_ room: UnsafeMutableRawBufferPointer) {
    guard idBytes > 0 else { return }
    unsafe room[0] = 2 << 3
    var rest = UInt64(bitPattern: id)
    for place in 1..<idBytes {
      unsafe room[place] = UInt8(truncatingIfNeeded: rest & 0x7F) | (place + 1 < idBytes ? 0x80 : 0)
      rest >>= 7
    }
  }
}
