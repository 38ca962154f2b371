internal import CTLS

/// OpenSSL's `SSL_CTX` while it is put together, and its owner afterwards.
///
/// Once it is complete nothing changes it any more, so that all cores make their sessions from one; OpenSSL
/// counts references to it atomically.
@safe final class TLSLibraryContext: @unchecked Sendable {
  let pointer: OpaquePointer
  /// The lists of the revocation file, if there is one. Sessions look into them.
  private var revoked: OpaquePointer?
  private(set) var expiries: [TLSExpiry] = []

  private init(_ pointer: OpaquePointer) { unsafe self.pointer = pointer }

  deinit {
    unsafe SSL_CTX_free(pointer)
    if let revoked = unsafe revoked { unsafe rw_tls_crl_list_free(revoked) }
  }

  /// An empty context for one side.
  static func make(
    server: Bool, least: TLSVersion, most: TLSVersion?
  ) throws(TLSFailure) -> TLSLibraryContext {
    ERR_clear_error()
    guard let pointer = unsafe SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()) else {
      throw TLSFailure.last
    }
    let made = unsafe TLSLibraryContext(pointer)
    guard unsafe rw_tls_prepare(pointer, least.number, most?.number ?? 0) else { throw TLSFailure.last }
    return made
  }

  // MARK: What this side shows

  /// - Parameter judge: looks at the certificate itself, before anything is done with it.
  func show(
    certificate: String, key: String,
    judge: (OpaquePointer) throws(TLSFailure) -> Void = { _ throws(TLSFailure) in }
  ) throws(TLSFailure) {
    var isFirst = true
    try unsafe TLSFile(certificate).certificates { one throws(TLSFailure) in
      guard isFirst else {
        guard unsafe rw_tls_add_chain(pointer, one) else { throw failure(certificate) }
        return
      }
      isFirst = false
      try unsafe judge(one)
      guard unsafe SSL_CTX_use_certificate(pointer, one) == 1 else { throw failure(certificate) }
      unsafe note(.certificate, certificate, X509_get0_notAfter(one))
    }
    try unsafe TLSFile(key).key { one throws(TLSFailure) in
      // Compares with the certificate, which is why the certificate comes first.
      guard unsafe SSL_CTX_use_PrivateKey(pointer, one) == 1, unsafe SSL_CTX_check_private_key(pointer) == 1
      else {
        ERR_clear_error()
        throw TLSFailure("\(key): tls: private key does not match public key of \(certificate)")
      }
    }
  }

  // MARK: Whom this side trusts

  func trust(_ file: String, announce: Bool) throws(TLSFailure) {
    let store = unsafe SSL_CTX_get_cert_store(pointer)
    try unsafe TLSFile(file).certificates { one throws(TLSFailure) in
      guard unsafe X509_STORE_add_cert(store, one) == 1 else { throw failure(file) }
      // Tells clients which of their certificates to send.
      if announce, unsafe SSL_CTX_add_client_CA(pointer, one) != 1 { throw failure(file) }
      unsafe note(.authority, file, X509_get0_notAfter(one))
    }
  }

  /// Trusts the authorities of the system. They are read now: a search in the file system for each handshake
  /// would stop a core.
  func trustSystem() throws(TLSFailure) {
    ERR_clear_error()
    for file in Self.systemFiles where unsafe SSL_CTX_load_verify_file(pointer, file) == 1 { return }
    ERR_clear_error()
    guard unsafe SSL_CTX_set_default_verify_paths(pointer) == 1 else { throw TLSFailure.last }
  }

  /// Where Go looks for them as well (crypto/x509/root_linux.go).
  private static let systemFiles = [
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
  ]

  /// Reads a revocation file; `demandCertificates` puts it in force.
  func refuse(_ file: String) throws(TLSFailure) {
    guard let lists = unsafe rw_tls_crl_list() else { throw failure(file) }
    unsafe revoked = lists
    try unsafe TLSFile(file).revocationLists { one throws(TLSFailure) in
      guard unsafe rw_tls_crl_list_add(lists, one) else {
        unsafe X509_CRL_free(one)
        throw failure(file)
      }
      unsafe note(.revocationList, file, X509_CRL_get0_nextUpdate(one))
    }
  }

  /// From now on clients have to show a certificate.
  func demandCertificates() { unsafe rw_tls_demand_certificates(pointer, revoked) }

  // MARK: Parts

  private func note(_ kind: TLSExpiry.Kind, _ file: String, _ time: UnsafePointer<ASN1_TIME>?) {
    guard let seconds = unsafe tlsSeconds(time) else { return }
    TLSExpiry.note(TLSExpiry(kind: kind, file: file, seconds: seconds), in: &expiries)
  }

  private func failure(_ file: String) -> TLSFailure { TLSFailure("\(file): \(TLSFailure.last)") }
}

extension TLSVersion {
  /// OpenSSL's number.
  var number: Int32 { self == .tls12 ? TLS1_2_VERSION : TLS1_3_VERSION }
}
