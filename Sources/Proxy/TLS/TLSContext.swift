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
  public static func client(trustedCAFile: String?) throws(TLSFailure) -> TLSContext {
    ERR_clear_error()
    guard let context = unsafe SSL_CTX_new(TLS_client_method()) else { throw .last }
    let made = unsafe TLSContext(context: context, verifies: trustedCAFile != nil)
    guard unsafe rw_tls_least_version(context, TLS1_2_VERSION) == 1 else { throw .last }
    // Unlike its neighbours this call returns 0 when all went well.
    let protocols: [UInt8] = [2] + Array("h2".utf8)
    let refused = unsafe SSL_CTX_set_alpn_protos(context, protocols, UInt32(protocols.count))
    guard refused == 0 else { throw .last }
    if let trustedCAFile {
      guard !trustedCAFile.utf8.contains(0), unsafe SSL_CTX_load_verify_file(context, trustedCAFile) == 1
      else { throw TLSFailure("\(trustedCAFile): \(TLSFailure.last)") }
      unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
    } else {
      unsafe SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nil)
    }
    return made
  }
}
