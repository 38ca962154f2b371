internal import Glibc

/// Plain text for the operator before there is a log, or after it.
public enum StandardError {
  /// Writes all of `text`, whatever it takes; nobody could be told of a failure.
  public static func write(_ text: String) { write(text, to: 2) }

  /// The same to another descriptor, for instance 1 for standard output.
  public static func write(_ text: String, to descriptor: Int32) {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count > 0 { bytes = bytes.dropFirst(count) } else if errno != EINTR { return }
    }
  }
}
