internal import Glibc

/// Socket calls that are made once a connection or once a process, not once a byte.
public enum Sockets {
  typealias NameCall = (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32

  static func address(_ descriptor: Int32, _ call: NameCall) -> Address? {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return unsafe withUnsafeMutablePointer(to: &storage) { storage in
      unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        guard unsafe call(descriptor, name, &length) == 0 else { return nil }
        return unsafe Address(name, length: length)
      }
    }
  }
}
