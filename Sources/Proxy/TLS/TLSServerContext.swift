internal import CTLS

/// The files and choices for the listener, by the flags of `grpc-proxy start`. Empty stands for "not given".
struct TLSListenFiles: Hashable, Sendable {
  /// `--cert-file` and `--key-file`.
  var cert = ""
  var key = ""
  /// `--trusted-ca-file`: makes client certificates a must.
  var trustedCA = ""
  /// `--client-crl-file`, PEM or DER.
  var crl = ""
  /// `--listen-cipher-suites`.
  var cipherSuites: [String] = []
  /// `--tls-min-version` and `--tls-max-version`.
  var minVersion: TLSVersion?
  var maxVersion: TLSVersion?

  /// True if the listener speaks cleartext.
  var isEmpty: Bool { cert.isEmpty && key.isEmpty && trustedCA.isEmpty }

  /// The files there are, for `TLSFileWatch`.
  var paths: [String] { [cert, key, trustedCA, crl].filter { !$0.isEmpty } }
}

/// What all TLS sessions with clients have in common. Immutable: a change of a file makes a new one.
@safe final class TLSServerContext: Sendable {
  let library: TLSLibraryContext
  /// True if clients have to show a certificate.
  let demandsCertificates: Bool
  /// What works but not as asked for; for the log.
  let warnings: [String]

  private init(_ library: TLSLibraryContext, demandsCertificates: Bool, warnings: [String]) {
    self.library = library
    self.demandsCertificates = demandsCertificates
    self.warnings = warnings
  }

  /// When the certificate, the first authority and the revocation list run out.
  var expiries: [TLSExpiry] { library.expiries }

  /// Reads all files.
  ///
  /// - Parameter address: where the listener is, for an error.
  static func load(_ files: TLSListenFiles, listening address: String) throws(TLSFailure) -> TLSServerContext
  {
    if files.cert.isEmpty, files.key.isEmpty {
      throw TLSFailure("cannot listen on TLS for \(address): KeyFile and CertFile are not presented")
    }
    try bothPresent(cert: files.cert, key: files.key)
    let (least, most) = (files.minVersion ?? .tls12, files.maxVersion)
    if let most, least > most {
      throw TLSFailure("min version (\(least.rawValue)) is greater than max version (\(most.rawValue))")
    }
    let library = try TLSLibraryContext.make(server: true, least: least, most: most)
    guard unsafe rw_tls_prepare_server(library.pointer) else { throw TLSFailure.last }
    let warnings = try library.choose(files.cipherSuites, most: most)
    try unsafe library.show(certificate: files.cert, key: files.key)
    // As with etcd the list is read even if there is nobody to look up in it, so that a wrong path shows at
    // once.
    if !files.crl.isEmpty { try library.refuse(files.crl) }
    if !files.trustedCA.isEmpty {
      try library.trust(files.trustedCA, announce: true)
      library.demandCertificates()
    }
    return TLSServerContext(library, demandsCertificates: !files.trustedCA.isEmpty, warnings: warnings)
  }
}

/// etcd's rule and words (client/pkg/transport/listener.go).
func bothPresent(cert: String, key: String) throws(TLSFailure) {
  guard cert.isEmpty != key.isEmpty else { return }
  throw TLSFailure("KeyFile and CertFile must both be present[key: \(key), cert: \(cert)]")
}

extension TLSLibraryContext {
  /// Chooses the cipher suites and says which of them OpenSSL does not have.
  fileprivate func choose(_ names: [String], most: TLSVersion?) throws(TLSFailure) -> [String] {
    guard unsafe SSL_CTX_set_ciphersuites(pointer, TLSCipherSuites.usual13) == 1 else {
      throw TLSFailure.last
    }
    guard !names.isEmpty else {
      // A client that prefers ChaCha20 has no hardware for AES. A list that was given is kept to the letter.
      unsafe rw_tls_prefer_chacha_with_client(pointer)
      guard unsafe SSL_CTX_set_cipher_list(pointer, TLSCipherSuites.usual) == 1 else { throw TLSFailure.last }
      return []
    }
    let suites = try TLSCipherSuites.translated(names)
    let known = suites.filter { unsafe SSL_CTX_set_cipher_list(pointer, $0) == 1 }
    ERR_clear_error()
    guard !known.isEmpty else { return try onlyTLS13(names, most) }
    guard unsafe SSL_CTX_set_cipher_list(pointer, known.joined(separator: ":")) == 1 else {
      throw TLSFailure.last
    }
    return suites.filter { !known.contains($0) }.map {
      "cipher suite \($0) is left out: this system's OpenSSL does not have it"
    }
  }

  /// Without a suite for TLS 1.2 there is only TLS 1.3, as in Go.
  private func onlyTLS13(_ names: [String], _ most: TLSVersion?) throws(TLSFailure) -> [String] {
    guard most != .tls12, unsafe rw_tls_least_version(pointer, TLS1_3_VERSION) == 1 else {
      ERR_clear_error()
      throw TLSFailure("no cipher suite is left for TLS1.2: \(names.joined(separator: ","))")
    }
    return ["no cipher suite of the list is one for TLS1.2, so that clients need TLS1.3"]
  }
}
