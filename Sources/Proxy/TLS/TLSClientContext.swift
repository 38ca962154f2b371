internal import CTLS

/// The files and choices for connections to etcd, by the flags of `grpc-proxy start`. Empty stands for "not
/// given".
struct TLSUpstreamFiles: Hashable, Sendable {
  /// `--cert` and `--key`.
  var cert = ""
  var key = ""
  /// `--cacert`; without it the system's authorities are trusted.
  var ca = ""
  /// `--insecure-skip-tls-verify`.
  var skipVerify = false

  /// True if no flag was given.
  var isEmpty: Bool { cert.isEmpty && key.isEmpty && ca.isEmpty && !skipVerify }

  /// The files there are, for `TLSFileWatch`.
  var paths: [String] { [cert, key, ca].filter { !$0.isEmpty } }
}

/// What all TLS sessions with etcd have in common. Immutable: a change of a file makes a new one.
@safe final class TLSClientContext: Sendable {
  let library: TLSLibraryContext
  /// True if etcd's certificate has to lead to a trusted authority and be for the endpoint's host.
  let verifies: Bool

  private init(_ library: TLSLibraryContext, verifies: Bool) {
    self.library = library
    self.verifies = verifies
  }

  /// When the certificate and the first authority run out.
  var expiries: [TLSExpiry] { library.expiries }

  /// Reads all files.
  static func load(_ files: TLSUpstreamFiles) throws(TLSFailure) -> TLSClientContext {
    try unsafe make(files) { certificate throws(TLSFailure) in
      // etcd takes the common name of a client's certificate for a user's name. All of the proxy's clients
      // would be that user.
      guard let name = unsafe tlsCommonName(certificate), !name.isEmpty else { return }
      throw TLSFailure("cert has non empty Common Name (\(name)): \(files.cert)")
    }
  }

  /// The same with the caller's own rule for the certificate that is shown.
  static func make(
    _ files: TLSUpstreamFiles, judge: (OpaquePointer) throws(TLSFailure) -> Void
  ) throws(TLSFailure) -> TLSClientContext {
    try bothPresent(cert: files.cert, key: files.key)
    let library = try TLSLibraryContext.make(server: false, least: .tls12, most: nil)
    // Unlike its neighbours SSL_CTX_set_alpn_protos returns 0 when all went well.
    let protocols: [UInt8] = [2] + Array("h2".utf8)
    guard unsafe SSL_CTX_set_alpn_protos(library.pointer, protocols, UInt32(protocols.count)) == 0,
      unsafe SSL_CTX_set_ciphersuites(library.pointer, TLSCipherSuites.usual13) == 1,
      unsafe SSL_CTX_set_cipher_list(library.pointer, TLSCipherSuites.usual) == 1
    else { throw TLSFailure.last }
    if !files.cert.isEmpty { try unsafe library.show(certificate: files.cert, key: files.key, judge: judge) }
    // Read even if nothing is verified: a wrong path is a mistake either way, as in etcd.
    if !files.ca.isEmpty {
      try library.trust(files.ca, announce: false)
    } else if !files.skipVerify {
      try library.trustSystem()
    }
    if !files.skipVerify { unsafe rw_tls_check_server(library.pointer) }
    return TLSClientContext(library, verifies: !files.skipVerify)
  }
}

/// The common name in a certificate's subject; of several the last one, as in Go.
func tlsCommonName(_ certificate: OpaquePointer) -> String? {
  let subject = unsafe X509_get_subject_name(certificate)
  var (index, last): (Int32, Int32) = (-1, -1)
  repeat {
    last = index
    index = unsafe X509_NAME_get_index_by_NID(subject, NID_commonName, last)
  } while index >= 0
  guard last >= 0 else { return nil }
  let value = unsafe X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, last))
  var text: UnsafeMutablePointer<UInt8>?
  let length = unsafe ASN1_STRING_to_UTF8(&text, value)
  guard length >= 0, let start = unsafe text else { return nil }
  defer { unsafe CRYPTO_free(start, nil, 0) }
  return unsafe String(decoding: UnsafeBufferPointer(start: start, count: Int(length)), as: UTF8.self)
}
