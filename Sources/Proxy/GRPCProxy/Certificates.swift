internal import Glibc
internal import Reactor

/// The certificates of both sides, as they are on disk now.
///
/// etcd's proxy reads its own certificate for each handshake and the authorities once; here all files are looked at each
/// second, and new ones serve the connections to come.
final class Certificates {
  private var serverFiles: TLSReloader<TLSServerContext>?
  private var clientFiles: TLSReloader<TLSClientContext>?

  /// Towards clients; nil for plain text.
  var server: TLSServerContext? { serverFiles?.current }
  /// Towards etcd; nil for plain text.
  var client: TLSClientContext? { clientFiles?.current }

  /// - Throws: in etcd's words what is wrong with a file.
  init(_ options: GRPCProxyOptions, _ log: Log) throws(StartFailure) {
    do throws(TLSFailure) {
      try makeServer(options, log)
    } catch {
      throw StartFailure(error.description)
    }
    do throws(TLSFailure) {
      try makeClient(options, log)
    } catch {
      throw StartFailure(error.description)
    }
  }

  private func makeServer(_ options: GRPCProxyOptions, _ log: Log) throws(TLSFailure) {
    guard options.listensWithTLS else { return }
    var files = TLSListenFiles(cert: options.listenCertificateFile, key: options.listenKeyFile)
    if !options.namesListenFiles { files = try selfSigned(options, log) }
    files.trustedCA = options.listenTrustedCAFile
    files.crl = options.listenCRLFile
    files.cipherSuites = options.listenCipherSuites
    files.minVersion = try TLSVersion.flag(options.tlsMinVersion)
    files.maxVersion = try TLSVersion.flag(options.tlsMaxVersion)
    let address = options.listenAddresses.first ?? ""
    log.info(
      "gRPC proxy server TLS",
      .string(
        "tls-info",
        "cert = \(files.cert), key = \(files.key), client-cert=, client-key=, trusted-ca = \(files.trustedCA), client-cert-auth = false, crl-file = \(files.crl)"
      ))
    let final = files
    let reloader = try TLSReloader(files.paths) { () throws(TLSFailure) in
      try TLSServerContext.load(final, listening: address)
    }
    for warning in reloader.current.warnings { log.warn(warning) }
    serverFiles = reloader
  }

  private func selfSigned(_ options: GRPCProxyOptions, _ log: Log) throws(TLSFailure) -> TLSListenFiles {
    let hosts = SelfSignedCertificate.hosts(
      listen: options.listenAddresses, advertise: options.advertiseURL, machine: HostName.own)
    let outcome = try SelfSignedCertificate.provide(
      in: options.dataDirectory, hosts: hosts, years: Int(clamping: options.selfSignedYears),
      now: Int64(time(nil)))
    let files = SelfSignedCertificate.files(in: options.dataDirectory)
    let path = LogField.string("cert", files.cert)
    switch outcome {
    case .kept: log.info("using the self-signed certificate found", path)
    case .made: log.info("made a self-signed certificate", path)
    case .renewed(let reason): log.warn("made a new self-signed certificate", path, .string("reason", reason))
    }
    return files
  }

  /// Discovery has the last word on TLS towards etcd, as the first endpoint's scheme has otherwise.
  ///
  /// - Throws: the system's authorities cannot be read.
  func follow(discovery isTLS: Bool, _ options: GRPCProxyOptions) throws(StartFailure) {
    guard isTLS != (clientFiles != nil), isTLS || !options.configuresUpstreamTLS else { return }
    do throws(TLSFailure) {
      let files = upstreamFiles(options)
      clientFiles =
        isTLS
        ? try TLSReloader(files.paths) { () throws(TLSFailure) in try TLSClientContext.load(files) } : nil
    } catch {
      throw StartFailure(error.description)
    }
  }

  private func upstreamFiles(_ options: GRPCProxyOptions) -> TLSUpstreamFiles {
    TLSUpstreamFiles(
      cert: options.certificateFile, key: options.keyFile, ca: options.caFile,
      skipVerify: options.skipsVerification)
  }

  private func makeClient(_ options: GRPCProxyOptions, _ log: Log) throws(TLSFailure) {
    let files = upstreamFiles(options)
    let security = UpstreamSecurity(endpoints: options.endpoints, configured: !files.isEmpty)
    if let warning = security.warning { log.warn(warning) }
    if !files.isEmpty {
      log.info(
        "gRPC proxy client TLS",
        .string(
          "tls-info",
          "cert = \(files.cert), key = \(files.key), client-cert=, client-key=, trusted-ca = \(files.ca), client-cert-auth = false, crl-file = "
        ))
    }
    // A file that is wrong stops the start although nothing would be encrypted with it.
    let reloader = try TLSReloader(files.paths) { () throws(TLSFailure) in try TLSClientContext.load(files) }
    if security.usesTLS { clientFiles = reloader }
  }

  /// Once a second: true when something is new. A file that became bad leaves what there was in force.
  func reload(_ log: Log) -> Bool {
    var isNew = false
    switch serverFiles?.poll() {
    case .renewed?:
      log.info("certificates for clients were read anew")
      isNew = true
    case .failed(let reason)?:
      log.error("new certificates for clients are not used", .string("error", reason))
    case .unchanged?, nil: break
    }
    switch clientFiles?.poll() {
    case .renewed?:
      log.info("certificates for etcd were read anew")
      isNew = true
    case .failed(let reason)?: log.error("new certificates for etcd are not used", .string("error", reason))
    case .unchanged?, nil: break
    }
    return isNew
  }
}
