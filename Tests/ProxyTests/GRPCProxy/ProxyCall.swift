import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// A call of a scripted client: what both ends say, and what became of it.
final class ProxyCall {
  enum Shape: CaseIterable { case read, write, watch, download, unknown }

  let id: Int
  let shape: Shape
  let requestSize: Int
  let answerSize: Int
  /// Messages each way; a unary call has one.
  let messages: Int
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

  init(id: Int, shape: Shape, requestSize: Int, answerSize: Int, messages: Int) {
    self.id = id
    self.shape = shape
    self.requestSize = requestSize
    self.answerSize = answerSize
    self.messages = messages
  }

  var path: String {
    switch shape {
    case .read: "/etcdserverpb.KV/Range"
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

  var state: String {
    "call \(id) \(shape) \(requestSize)/\(answerSize)x\(messages): sent \(sent), received \(received), acted \(acted), "
      + "ends \(ends), \(status ?? "no status")\(isCancelled ? ", cancelled" : "")"
  }
}
