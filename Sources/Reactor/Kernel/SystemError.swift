internal import Glibc

/// An `errno` value that the kernel gave back.
public struct SystemError: Error, Equatable, Sendable {
  /// The positive errno, for example `EMFILE`.
  public let code: Int32

  /// Wraps a positive errno.
  public init(code: Int32) { self.code = code }

  /// The error the calling thread's last failed libc call left behind.
  public static var last: SystemError { SystemError(code: errno) }
}

extension SystemError: CustomStringConvertible {
  /// The C library's own sentence in lower case, as Go prints it: `connection refused`.
  public var description: String {
    guard let text = unsafe strerror(code) else { return "errno \(code)" }
    return unsafe String(cString: text).lowercased()
  }
}
