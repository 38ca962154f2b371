import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// A call of a scripted client: what both ends say, and what became of it.
final class ProxyCall {
  enum Shape: CaseIterable { case read, write, watch, download, unknown, shared }

  let id: Int
  let shape: Shape
  let requestSize: Int
  let answerSize: Int
  /// Messages each way; a unary call has one.
  let messages: Int
  /// Of a shared read.
  let valueSize: Int
  var timeout: UInt64?
  var cancelsAt = Int.max

  // The client's side.
  var stream: UInt32 = 0
  var sent = 0
  var isBlocked = false
  var received = 0
  var status: String?
  var ends = 0
  var isCancelled = false
  var began: UInt64 = 0
  // The endpoints' side.
  var acted = 0

  init(id: Int, shape: Shape, requestSize: Int, answerSize: Int, messages: Int, valueSize: Int = 0) {
    self.id = id
    self.shape = shape
    self.requestSize = requestSize
    self.answerSize = answerSize
    self.messages = messages
    self.valueSize = valueSize
  }

  var path: String {
    switch shape {
    case .read, .shared: "/etcdserverpb.KV/Range"
    case .write: "/etcdserverpb.KV/Put"
    case .watch: "/etcdserverpb.Watch/Watch"
    case .download: "/etcdserverpb.Maintenance/Snapshot"
    case .unknown: "/future.Service/Method"
    }
  }

  /// Bytes of one direction, prefixes included.
  func total(request: Bool) -> Int { messages * (5 + (request ? requestSize : answerSize)) }

  /// The bytes of one direction from `offset` on.
  func bytes(request: Bool, at offset: Int, count: Int) -> [UInt8] {
    if shape == .shared {
      let message = request ? question : answer
      return Array(message[offset..<offset + count])
    }
    let size = request ? requestSize : answerSize
    let noise = SimStream.bytes(of: UInt64(id) * 2 + (request ? 1 : 0), at: 8, count: 60_000)
    return (offset..<offset + count).map { place in
      switch place % (5 + size) {
      case 0: 0
      case let index where index < 5: UInt8(truncatingIfNeeded: size >> (8 * (4 - index)))
      default: noise[place % noise.count]
      }
    }
  }

  /// A read that many calls make, every other one serializable, and its answer with a value of so many bytes.
  static func shared(id: Int, _ size: Int) -> ProxyCall {
    ProxyCall(
      id: id, shape: .shared, requestSize: question(size, id).count - 5, answerSize: answer(size).count - 5,
      messages: 1, valueSize: size)
  }

  private lazy var question = Self.question(valueSize, id)
  private lazy var answer = Self.answer(valueSize)

  private static func question(_ size: Int, _ id: Int) -> [UInt8] {
    let key = Array("key \(size)".utf8)
    return framed([0x0A, UInt8(key.count)] + key + (id % 2 == 0 ? [0x38, 1] : []))
  }

  private static func answer(_ size: Int) -> [UInt8] {
    let pool = BlockPool()
    defer { withExtendedLifetime(pool) {} }
    var message = ByteBuffer(pool)
    ResponseHeader(clusterID: 1, memberID: 2, revision: 5, raftTerm: 3).encode(into: &message)
    let mark = message.openMessage(2)
    message.appendField(5, (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ size) })
    message.closeMessage(mark)
    return framed(Array(message.bytes))
  }

  private static func framed(_ message: [UInt8]) -> [UInt8] {
    [0] + (0..<4).map { UInt8(truncatingIfNeeded: message.count >> (24 - 8 * $0)) } + message
  }

  var state: String {
    "call \(id) \(shape) \(requestSize)/\(answerSize)x\(messages): sent \(sent), received \(received), acted \(acted), "
      + "ends \(ends), \(status ?? "no status")\(isCancelled ? ", cancelled" : "")"
  }
}
