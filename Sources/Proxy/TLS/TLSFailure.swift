internal import CTLS

/// Why something of TLS could not be made or read, for the operator.
public struct TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// The cause.
  public let description: String

  init(_ description: String) { self.description = description }

  /// The oldest error in the thread's queue, which is emptied.
  static var last: TLSFailure {
    let code = ERR_get_error()
    defer { ERR_clear_error() }
    return TLSFailure(code == 0 ? "unknown error" : words(code))
  }

  /// What OpenSSL calls an error.
  static func words(_ code: UInt) -> String {
    let room = 256  // ERR_error_string_n(3) asks for at least 120
    let text = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: room) { buffer in
      guard let start = buffer.baseAddress else { return "" }
      unsafe ERR_error_string_n(code, start, room)
      return unsafe String(cString: start)
    }
    // `error:0A00010B:SSL routines::wrong version number`
    return text.split(separator: ":").last.map(String.init) ?? text
  }
}
