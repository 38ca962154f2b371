/// The nine bytes in front of every frame (RFC 9113 section 4.1).
struct HTTP2FrameHeader {
  static let size = 9

  var length = 0
  var type: UInt8 = 0
  var flags: UInt8 = 0
  var stream: UInt32 = 0

  init() {}

  init(length: Int, type: UInt8, flags: UInt8 = 0, stream: UInt32) {
    self.length = length
    self.type = type
    self.flags = flags
    self.stream = stream
  }

  /// Reads a header from nine bytes. The reserved bit is ignored.
  init(_ bytes: UnsafeRawBufferPointer) {
    precondition(bytes.count == Self.size)
    let start = unsafe bytes.number32(0)
    length = Int(start >> 8)
    type = UInt8(truncatingIfNeeded: start)
    unsafe flags = bytes[4]
    unsafe stream = bytes.number32(5) & 0x7FFF_FFFF
  }

  /// Writes the header at `offset`.
  func write(to room: UnsafeMutableRawBufferPointer, at offset: Int = 0) {
    precondition(room.count >= offset + Self.size)
    let start = UInt32(truncatingIfNeeded: length) << 8 | UInt32(type)
    unsafe room.storeBytes(of: start.bigEndian, toByteOffset: offset, as: UInt32.self)
    unsafe room[offset + 4] = flags
    unsafe room.storeBytes(of: stream.bigEndian, toByteOffset: offset + 5, as: UInt32.self)
  }

  func has(_ flag: UInt8) -> Bool { flags & flag != 0 }
}

/// Frame types (RFC 9113 section 6).
enum FrameType {
  static let data: UInt8 = 0
  static let headers: UInt8 = 1
  static let priority: UInt8 = 2
  static let resetStream: UInt8 = 3
  static let settings: UInt8 = 4
  static let pushPromise: UInt8 = 5
  static let ping: UInt8 = 6
  static let goAway: UInt8 = 7
  static let windowUpdate: UInt8 = 8
  static let continuation: UInt8 = 9
}

/// Frame flags.
enum FrameFlag {
  static let endStream: UInt8 = 0x1
  static let acknowledgement: UInt8 = 0x1
  static let endHeaders: UInt8 = 0x4
  static let padded: UInt8 = 0x8
  static let priority: UInt8 = 0x20
}

/// Settings (RFC 9113 section 6.5.2).
enum SettingID {
  static let headerTableSize: UInt16 = 1
  static let enablePush: UInt16 = 2
  static let maxConcurrentStreams: UInt16 = 3
  static let initialWindowSize: UInt16 = 4
  static let maxFrameSize: UInt16 = 5
  static let maxHeaderListSize: UInt16 = 6
}

extension UnsafeRawBufferPointer {
  /// Two bytes in network order; both must exist.
  func number16(_ offset: Int) -> UInt16 {
    precondition(offset >= 0 && offset + 2 <= count)
    return unsafe loadUnaligned(fromByteOffset: offset, as: UInt16.self).bigEndian
  }

  /// Four bytes in network order; all must exist.
  func number32(_ offset: Int) -> UInt32 {
    precondition(offset >= 0 && offset + 4 <= count)
    return unsafe loadUnaligned(fromByteOffset: offset, as: UInt32.self).bigEndian
  }

  /// Eight bytes in network order; all must exist.
  func number64(_ offset: Int) -> UInt64 {
    precondition(offset >= 0 && offset + 8 <= count)
    return unsafe loadUnaligned(fromByteOffset: offset, as: UInt64.self).bigEndian
  }

  /// The bytes from `start` on; none if there are not that many.
  func from(_ start: Int) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: self[Swift.min(start, count)...])
  }

  /// The first `size` bytes, or all.
  func first(_ size: Int) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: self[..<Swift.min(size, count)])
  }
}
