internal import Glibc
internal import Reactor

/// What MemberList says instead of etcd's members: the proxies, so that clients that follow the list stay behind them.
/// The header is etcd's own, and so is the right to ask: the call goes to etcd like any other.
final class MemberAnswer: Sendable {
  private let members: [Member]

  init(_ members: [Member]) { self.members = members }

  /// Of a proxy that knows of no other; nil when it is not to be told of.
  convenience init?(ownOf options: GRPCProxyOptions) {
    guard !options.advertiseURL.isEmpty else { return nil }
    self.init([Member(name: HostName.own, clientURLs: [options.advertiseURL])])
  }

  /// Writes the answer with the header of etcd's; false if etcd's cannot be read.
  func replace(in message: UnsafeRawBufferPointer, into output: inout ByteBuffer) -> Bool {
    guard let answer = unsafe try? MemberListResponse(message) else { return false }
    MemberListResponse(header: answer.header, members: members).encode(into: &output)
    return true
  }
}

/// This machine's name.
enum HostName {
  static var own: String {
    var name = [UInt8](repeating: 0, count: 256)
    let result = unsafe name.withUnsafeMutableBytes { bytes in
      guard let start = bytes.baseAddress else { return Int32(-1) }
      return unsafe gethostname(start.assumingMemoryBound(to: CChar.self), 255)
    }
    return result == 0 ? String(decoding: name.prefix { $0 != 0 }, as: UTF8.self) : "localhost"
  }
}
