internal import CTLS
internal import Glibc
internal import Reactor

/// The certificate of `--auto-tls`: made when there is none, kept over restarts, renewed in time.
enum SelfSignedCertificate {
  /// What was found and done, for the log.
  enum Outcome: Hashable, Sendable {
    case kept
    case made
    /// Why the old one would not do.
    case renewed(String)
  }

  /// Where etcd keeps them too.
  static func files(in dataDirectory: String) -> TLSListenFiles {
    let folder = "\(dataDirectory)/fixtures/proxy"
    return TLSListenFiles(cert: "\(folder)/cert.pem", key: "\(folder)/key.pem")
  }

  /// Sees to it that there is a certificate that can be used.
  ///
  /// A certificate is replaced if it expires within 30 days, if it or its key cannot be read as such, or if
  /// it is for none of `hosts`, as those are that etcd makes.
  ///
  /// - Parameters:
  ///   - hosts: names and IP addresses to be for, see `hosts(listen:advertise:)`.
  ///   - years: how long it is good for, 365 days each.
  ///   - now: seconds since 1970.
  static func provide(
    in dataDirectory: String, hosts: [String], years: Int, now: Int64
  ) throws(TLSFailure) -> Outcome {
    let files = files(in: dataDirectory)
    let found = try (exists(files.cert), exists(files.key))
    var fault: String?
    switch found {
    case (true, true):
      fault = self.fault(files, hosts, now)
      if fault == nil { return .kept }
    case (true, false): fault = "\(files.key) is missing"
    case (false, true): fault = "\(files.cert) is missing"
    case (false, false): break
    }
    try make(files, hosts, until: end(now, years), now)
    return fault.map(Outcome.renewed) ?? .made
  }

  /// Names by which clients on this machine and elsewhere may call the proxy.
  ///
  /// - Parameters:
  ///   - listen: where the proxy listens, each `host:port`.
  ///   - advertise: what it tells others, `host:port` or a URL.
  ///   - machine: the host name.
  static func hosts(listen: [String], advertise: String, machine: String) -> [String] {
    var hosts: [String] = []
    for address in listen + [advertise] where !address.hasPrefix("unix:") && !address.hasPrefix("unixs:") {
      let authority = address.split(separator: "://", maxSplits: 1).last?.prefix { $0 != "/" } ?? ""
      hosts.append((try? HostPort(String(authority)))?.host ?? String(authority))
    }
    var seen: Set<String> = ["", "0.0.0.0", "::"]
    return (hosts + [machine, "localhost", "127.0.0.1", "::1"]).filter {
      name(for: $0) != nil && seen.insert($0).inserted
    }
  }

  // MARK: What there is

  private static func exists(_ path: String) throws(TLSFailure) -> Bool {
    var status = stat()
    if unsafe stat(path, &status) == 0 { return true }
    let error = SystemError.last
    if error.code == ENOENT { return false }
    throw TLSFailure("stat \(path): \(error)")
  }

  private static func fault(_ files: TLSListenFiles, _ hosts: [String], _ now: Int64) -> String? {
    do throws(TLSFailure) {
      var fault: String?
      let context = try TLSServerContext.load(files, listening: "")
      let library = context.library
      guard let certificate = unsafe SSL_CTX_get0_certificate(library.pointer) else {
        return "no certificate"
      }
      let days = Limits.selfSignedRenewalDays
      if let end = context.expiries.first?.seconds, end < now + days * 86400 {
        fault = end < now ? "it has expired" : "it expires within \(days) days"
      } else if !hosts.contains(where: { unsafe isFor($0, certificate) }) {
        fault = "it is for none of \(hosts.joined(separator: ", "))"
      }
      return fault
    } catch {
      return error.description
    }
  }

  private static func isFor(_ host: String, _ certificate: OpaquePointer) -> Bool {
    if Address(ip: host, port: 0) != nil { return unsafe X509_check_ip_asc(certificate, host, 0) == 1 }
    let flags = UInt32(X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
    return unsafe X509_check_host(certificate, host, 0, flags, nil) == 1
  }

  // MARK: A new one

  private static func end(_ now: Int64, _ years: Int) -> Int64 {
    let last: Int64 = 253_402_300_799  // the year 9999, beyond which certificates cannot express a time
    let (seconds, overflow) = Int64(clamping: years).multipliedReportingOverflow(by: 365 * 86400)
    return overflow || seconds > last - now ? last : now + seconds
  }

  /// As OpenSSL's configuration writes it; nil if it is neither a host name nor an address.
  private static func name(for host: String) -> String? {
    if Address(ip: host, port: 0) != nil { return host.utf8.contains(UInt8(ascii: "%")) ? nil : "IP:\(host)" }
    let isName = host.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
        true
      default: false
      }
    }
    return isName && !host.isEmpty && host.utf8.count <= 253 ? "DNS:\(host)" : nil
  }

  private static func make(
    _ files: TLSListenFiles, _ hosts: [String], until end: Int64, _ now: Int64
  ) throws(TLSFailure) {
    ERR_clear_error()
    guard let key = unsafe rw_tls_new_key() else { throw TLSFailure.last }
    defer { unsafe EVP_PKEY_free(key) }
    let names = hosts.compactMap(name).joined(separator: ",")
    guard let certificate = unsafe rw_tls_self_signed(key, names, now, end) else { throw TLSFailure.last }
    defer { unsafe X509_free(certificate) }
    try makeFolders(of: files.cert)
    // Whoever stops between the two leaves a pair that does not match, which the next start replaces.
    try unsafe write(files.key, mode: 0o600) {
      unsafe PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil)
    }
    try unsafe write(files.cert, mode: 0o644) { unsafe PEM_write_bio_X509($0, certificate) }
  }

  private static func makeFolders(of path: String) throws(TLSFailure) {
    for (index, byte) in path.utf8.enumerated() where byte == UInt8(ascii: "/") && index > 0 {
      let folder = String(decoding: path.utf8.prefix(index), as: UTF8.self)
      if unsafe mkdir(folder, 0o700) != 0, errno != EEXIST {
        throw TLSFailure("mkdir \(folder): \(SystemError.last)")
      }
    }
  }

  /// Under another name first, so that nobody ever reads half a file.
  private static func write(
    _ path: String, mode: mode_t, _ content: (OpaquePointer) -> Int32
  ) throws(TLSFailure) {
    let draft = "\(path).new"
    unsafe unlink(draft)
    let descriptor = unsafe open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw TLSFailure("open \(draft): \(SystemError.last)") }
    defer { close(descriptor) }
    guard let file = unsafe BIO_new_fd(descriptor, BIO_NOCLOSE) else { throw TLSFailure.last }
    defer { unsafe BIO_free(file) }
    guard unsafe content(file) == 1 else { throw TLSFailure("write \(draft): \(TLSFailure.last)") }
    guard unsafe rename(draft, path) == 0 else { throw TLSFailure("rename \(draft): \(SystemError.last)") }
  }
}
