internal import CTLS

/// What every TLS handshake of one kind has in common: OpenSSL's `SSL_CTX`. Used by one thread.
@safe public final class TLSContext {
  let context: OpaquePointer
  /// True if a server has to show a certificate that leads to a trusted authority.
  let verifies: Bool

  private init(context: OpaquePointer, verifies: Bool) {
    unsafe self.context = context
    self.verifies = verifies
  }

  deinit { unsafe SSL_CTX_free(context) }

  /// For connections to etcd: TLS 1.2 or newer, `h2` offered (ALPN, RFC 7301), no client certificate.
  ///
  /// - Parameter trustedCAFile: PEM file with the authorities to trust; nil to accept every certificate.
  /// - Throws: the file cannot be read or has no certificate, or memory is short.
  public static func client(trustedCAFile: String?) throws(Failure) -> TLSContext {
    ERR_clear_error()
    guard let context = unsafe SSL_CTX_new(TLS_client_method()) else { throw .last }
    let made = unsafe TLSContext(context: context, verifies: trustedCAFile != nil)
    guard unsafe rw_tls_least_version_1_2(context) == 1 else { throw .last }
    // Unlike its neighbours this call returns 0 when all went well.
    let protocols: [UInt8] = [2] + Array("h2".utf8)
    let refused = unsafe SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count))
    guard refused == 0 else { throw .last }
    if let trustedCAFile {
      guard !trustedCAFile.utf8.contains(0), unsafe SSL_CTX_load_verify_file(context, trustedCAFile) == 1
      else { throw Failure(description: "\(trustedCAFile): \(Failure.last)") }
      unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
    } else {
      unsafe SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nil)
    }
    return made
  }

  /// Why something of OpenSSL's could not be made, in its words.
  public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The cause.
    public let description: String

    /// The oldest error in the thread's queue, which is emptied.
    static var last: Failure {
      let code = ERR_get_error()
      defer { ERR_clear_error() }
      guard code != 0 else { return Failure(description: "unknown error") }
      let room = 256  // ERR_error_string_n(3) asks for at least 120
      let text = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: room) { buffer in
        guard let start = buffer.baseAddress else { return "" }
        unsafe ERR_error_string_n(code, start, room)
        return unsafe String(cString: start)
      }
      // `error:0A00010B:SSL routines::wrong version number`
      let words = text.split(separator: ":").last.map(String.init) ?? text
      return Failure(description: words)
    }
  }
}
