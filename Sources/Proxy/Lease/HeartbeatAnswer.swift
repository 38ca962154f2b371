internal import Reactor

/// etcd's answer to a heartbeat as it goes to clients, gRPC's prefix included.
///
/// Its own bytes, unless it has grown beyond what this has room for; then the fields that are known today.
struct HeartbeatAnswer {
  /// Four numbers of a header with its frame, two numbers, the prefix: 73 bytes at most.
  private static let room = 79

  private var bytes = InlineArray<79, UInt8>(repeating: 0)
  private(set) var count: UInt8 = 0

  /// No answer yet.
  static let none = HeartbeatAnswer()

  var isNone: Bool { count == 0 }

  private init() {}

  init(_ message: UnsafeRawBufferPointer, _ decoded: LeaseKeepAliveResponse, _ pool: BlockPool) {
    guard message.count + GRPCMessage.prefix > Self.room else {
      unsafe keep(message)
      return
    }
    var known = ByteBuffer(pool)
    decoded.encode(into: &known)
    unsafe keep(known.bytes)
  }

  private mutating func keep(_ message: UnsafeRawBufferPointer) {
    count = UInt8(GRPCMessage.prefix + message.count)
    unsafe withUnsafeMutableBytes(of: &bytes) { room in
      unsafe MessageFramer.writeHeader(length: UInt32(message.count), into: room)
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[GRPCMessage.prefix...]).copyMemory(from: message)
    }
  }

  func append(to output: inout ByteBuffer) {
    unsafe withUnsafeBytes(of: bytes) { bytes in
      unsafe output.append(UnsafeRawBufferPointer(rebasing: bytes[..<Int(count)]))
    }
  }
}
