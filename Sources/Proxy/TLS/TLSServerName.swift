internal import CTLS
internal import Reactor

/// For whom a server's certificate must be, by Go's rules.
enum TLSServerName {
  /// Makes the name or address part of what a session verifies; a name is also sent to the server (RFC 6066
  /// section 3).
  static func expect(_ name: String, _ session: OpaquePointer) throws(TLSFailure) {
    ERR_clear_error()
    guard unsafe !set(name, session) else { return }
    let cause = ERR_peek_error() == 0 ? "not a host name" : TLSFailure.last.description
    throw TLSFailure("server name \(name): \(cause)")
  }

  /// False if OpenSSL does not take it.
  private static func set(_ serverName: String, _ session: OpaquePointer) -> Bool {
    guard !serverName.isEmpty, serverName != ".", !serverName.utf8.contains(0) else { return false }
    let rules = unsafe SSL_get0_param(session)
    if Address(ip: serverName, port: 0) != nil {
      return unsafe X509_VERIFY_PARAM_set1_ip_asc(rules, serverName) == 1
    }
    // As Go: the root's dot is not part of the name, common names do not count.
    let name = serverName.hasSuffix(".") ? String(serverName.dropLast()) : serverName
    let flags = UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
    unsafe X509_VERIFY_PARAM_set_hostflags(rules, flags)
    return unsafe X509_VERIFY_PARAM_set1_host(rules, name, 0) == 1 && rw_tls_server_name(session, name) == 1
  }
}
