internal import CTLS

/// Why a session failed: Go's words, which people search for and clients match on, OpenSSL's, and what to do.
enum TLSWords {
  /// For a session with a client. Takes the thread's error queue.
  static func server(_ session: OpaquePointer) -> String {
    unsafe text(session, name: nil, serverAdvice)
  }

  /// For a session with etcd. Takes the thread's error queue.
  static func client(_ session: OpaquePointer, serverName: String?) -> String {
    unsafe text(session, name: serverName, clientAdvice)
  }

  /// What failed, as far as there is something to be said about it.
  private enum Cause {
    case cleartext, noCertificate, noCommonSuite, noCommonVersion, noCommonProtocol
    case unknownAuthority, expired, revoked, badList, wrongName, unverified
    case alert(Int32)
    case other
  }

  private static func text(
    _ session: OpaquePointer, name: String?, _ advice: (Cause) -> String?
  ) -> String {
    var code = ERR_peek_error()
    var detail: String?
    if ERR_GET_LIB(code) == ERR_LIB_USER, ERR_GET_REASON(code) == RW_TLS_REFUSED {
      var data: UnsafePointer<CChar>?
      unsafe ERR_get_error_all(nil, nil, nil, &data, nil)
      detail = unsafe data.map { unsafe String(cString: $0) }
      code = ERR_peek_error()
    }
    defer { ERR_clear_error() }
    guard code != 0 else { return "tls: the other end closed before the handshake was complete" }
    let verdict = unsafe SSL_get_verify_result(session)
    let cause = cause(code, verdict)
    var words = TLSFailure.words(code)
    if ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED,
      let reason = unsafe X509_verify_cert_error_string(verdict)
    {
      words = unsafe String(cString: reason)
    }
    let facts = [words, detail, name.map { "for \($0)" }].compactMap(\.self).joined(separator: ", ")
    let start = goText(cause).map { "\($0) (\(facts))" } ?? "tls: \(facts)"
    return advice(cause).map { "\(start): \($0)" } ?? start
  }

  // MARK: Causes

  private static func cause(_ code: UInt, _ verdict: Int) -> Cause {
    guard ERR_GET_LIB(code) == ERR_LIB_SSL else { return .other }
    switch ERR_GET_REASON(code) {
    case SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST, SSL_R_WRONG_VERSION_NUMBER: return .cleartext
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return .noCertificate
    case SSL_R_NO_SHARED_CIPHER: return .noCommonSuite
    case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW: return .noCommonVersion
    case SSL_R_NO_APPLICATION_PROTOCOL: return .noCommonProtocol
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return cause(verdict)
    case let reason where (1000..<1256).contains(reason): return .alert(reason - 1000)
    default: return .other
    }
  }

  private static func cause(_ verdict: Int) -> Cause {
    switch Int32(truncatingIfNeeded: verdict) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
      X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
      X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return .unknownAuthority
    case X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID: return .expired
    case X509_V_ERR_CERT_REVOKED: return .revoked
    case X509_V_ERR_CRL_SIGNATURE_FAILURE: return .badList
    case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: return .wrongName
    default: return .unverified
    }
  }

  // MARK: Go's words

  private static func goText(_ cause: Cause) -> String? {
    let unverified = "tls: failed to verify certificate"
    switch cause {
    case .cleartext: return "tls: first record does not look like a TLS handshake"
    case .noCertificate: return "tls: client didn't provide a certificate"
    case .noCommonSuite: return "tls: no cipher suite supported by both client and server"
    case .noCommonVersion: return "tls: client offered only unsupported versions"
    case .noCommonProtocol: return "tls: client requested unsupported application protocols"
    case .unknownAuthority: return "\(unverified): x509: certificate signed by unknown authority"
    case .expired: return "\(unverified): x509: certificate has expired or is not yet valid"
    case .revoked: return "transport: certificate revoked"
    case .wrongName: return "\(unverified): x509: certificate is not valid for the name"
    case .badList, .unverified: return unverified
    case .alert(let number): return alerts[number].map { "remote error: tls: \($0)" }
    case .other: return nil
    }
  }

  /// The alerts of RFC 8446 section 6 and RFC 5246 section 7.2, as Go calls them.
  private static let alerts: [Int32: String] = [
    10: "unexpected message", 20: "bad record MAC", 21: "decryption failed", 22: "record overflow",
    30: "decompression failure", 40: "handshake failure", 42: "bad certificate",
    43: "unsupported certificate",
    44: "revoked certificate", 45: "expired certificate", 46: "unknown certificate", 47: "illegal parameter",
    48: "unknown certificate authority", 49: "access denied", 50: "error decoding message",
    51: "error decrypting message", 60: "export restriction", 70: "protocol version not supported",
    71: "insufficient security level", 80: "internal error", 86: "inappropriate fallback",
    90: "user canceled",
    100: "no renegotiation", 109: "missing extension", 110: "unsupported extension",
    111: "certificate unobtainable", 112: "unrecognized name", 113: "bad certificate status response",
    114: "bad certificate hash value", 115: "unknown PSK identity", 116: "certificate required",
    120: "no application protocol",
  ]

  // MARK: What to do

  private static func serverAdvice(_ cause: Cause) -> String? {
    switch cause {
    case .cleartext: "the client speaks cleartext to a TLS listener; it needs https:// and --cacert"
    case .noCertificate: "--trusted-ca-file is set, so that clients need --cert and --key"
    case .noCommonSuite: "see --listen-cipher-suites"
    case .noCommonVersion, .alert(70): "see --tls-min-version and --tls-max-version"
    case .unknownAuthority: "the client's certificate does not come from an authority in --trusted-ca-file"
    case .expired: "renew the client's certificate, or set the clocks right"
    case .revoked: "it is listed in --client-crl-file"
    case .badList: "--client-crl-file is not signed by the authority it names"
    case .alert(42), .alert(46), .alert(48):
      "the client does not trust this proxy's certificate; it needs --cacert with its authority"
    case .alert(45): "renew the certificate in --cert-file, or set the clocks right"
    default: nil
    }
  }

  private static func clientAdvice(_ cause: Cause) -> String? {
    switch cause {
    case .cleartext: "the endpoint speaks cleartext; use http:// in --endpoints"
    case .unknownAuthority: "etcd's certificate does not come from an authority in --cacert"
    case .expired: "renew etcd's certificate, or set the clocks right"
    case .wrongName: "name the endpoint in --endpoints as its certificate does"
    case .alert(40), .alert(42), .alert(46), .alert(48), .alert(116):
      "etcd wants a client certificate from an authority in its --trusted-ca-file; see --cert and --key"
    case .alert(45): "renew the certificate in --cert, or set the clocks right"
    default: nil
    }
  }
}
