import Glibc
import Reactor
import Testing

@testable import Proxy

/// What the files and flags of TLS do: certificates, revocation, versions, cipher suites, and the words when
/// it fails.
@Suite struct TLSContextTests {
  private let world: TLSWorld

  init() throws { world = try TLSWorld.shared.get() }

  private func words(_ body: () throws -> Void) -> String {
    do {
      try body()
      return ""
    } catch {
      return "\(error)"
    }
  }

  private func shaken(
    _ upstream: TLSClientContext, _ listen: TLSServerContext, name: String? = "etcd.test"
  ) throws -> TLSPair {
    let pair = try TLSPair(upstream, listen, name: name)
    pair.shake()
    return pair
  }

  // MARK: The listener's files

  @Test func listenerFilesThatAreNone() throws {
    let (cert, key) = (world.path("server.pem"), world.path("server.key"))
    let load = { (files: TLSListenFiles) in
      self.words { _ = try TLSServerContext.load(files, listening: "127.0.0.1:23790") }
    }
    #expect(TLSListenFiles().isEmpty && !TLSListenFiles(trustedCA: cert).isEmpty)
    #expect(
      load(.init(trustedCA: cert))
        == "cannot listen on TLS for 127.0.0.1:23790: KeyFile and CertFile are not presented")
    #expect(load(.init(cert: cert)) == "KeyFile and CertFile must both be present[key: , cert: \(cert)]")
    #expect(load(.init(key: key)) == "KeyFile and CertFile must both be present[key: \(key), cert: ]")
    #expect(load(.init(cert: "/no/where", key: key)) == "open /no/where: no such file or directory")
    #expect(load(.init(cert: cert, key: "/no/where")) == "open /no/where: no such file or directory")
    #expect(load(.init(cert: "a\0b", key: key)) == "open a\0b: no such file or directory")
    #expect(
      load(.init(cert: key, key: key)) == "\(key): tls: failed to find any PEM data in certificate input")
    let other = world.path("alice.key")
    #expect(
      load(.init(cert: cert, key: other)) == "\(other): tls: private key does not match public key of \(cert)"
    )
    let noKey = "tls: failed to find a PEM private key without password in key input"
    #expect(load(.init(cert: cert, key: cert)) == "\(cert): \(noKey)")
    let locked = world.path("locked.key")
    #expect(load(.init(cert: cert, key: locked)) == "\(locked): \(noKey)")
    for file in [key, world.path("ca.cnf")] {
      let text = load(.init(cert: cert, key: cert, trustedCA: file))
      #expect(!text.isEmpty)
      #expect(
        load(.init(cert: cert, key: key, trustedCA: file)).hasPrefix("\(file): tls: failed to find any PEM"))
      #expect(
        load(.init(cert: cert, key: key, crl: file))
          == "\(file): neither PEM nor DER of a certificate revocation list")
    }
    #expect(load(.init(cert: cert, key: key, crl: "/no/list")) == "open /no/list: no such file or directory")
    #expect(
      load(.init(cert: cert, key: key, minVersion: .tls13, maxVersion: .tls12))
        == "min version (TLS1.3) is greater than max version (TLS1.2)")
  }

  @Test func versionFlags() throws {
    #expect(try TLSVersion.flag("TLS1.2") == .tls12 && TLSVersion.flag("TLS1.3") == .tls13)
    #expect(try TLSVersion.flag("") == nil)
    #expect(
      words { _ = try TLSVersion.flag("TLS1.1") }
        == "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)")
  }

  @Test func expiriesAreKnown() throws {
    let context = try world.listen(ca: "ca", crl: "crl.pem")
    #expect(context.expiries.map(\.kind) == [.certificate, .revocationList, .authority])
    let now = Int64(time(nil))
    let days = context.expiries.map { ($0.seconds - now + 43200) / 86400 }
    #expect(days == [2, 3, 3])
    #expect(try world.listen("old").expiries.first?.seconds == 1_580_515_200)
    #expect(
      try world.upstream("alice").expiries.map(\.file) == [world.path("alice.pem"), world.path("ca.pem")])
  }

  // MARK: etcd's side

  @Test func upstreamFiles() throws {
    let load = { (files: TLSUpstreamFiles) in self.words { _ = try TLSClientContext.load(files) } }
    let (ca, cert) = (world.path("ca.pem"), world.path("alice.pem"))
    #expect(TLSUpstreamFiles().isEmpty && !TLSUpstreamFiles(skipVerify: true).isEmpty)
    #expect(load(.init(ca: ca)) == "")
    #expect(load(.init()) == "")
    #expect(load(.init(skipVerify: true)) == "")
    #expect(
      load(.init(cert: cert, key: world.path("alice.key"), ca: ca))
        == "cert has non empty Common Name (alice): \(cert)")
    #expect(load(.init(cert: world.path("anonymous.pem"), key: world.path("anonymous.key"), ca: ca)) == "")
    #expect(
      load(.init(cert: cert, ca: ca)) == "KeyFile and CertFile must both be present[key: , cert: \(cert)]")
    #expect(load(.init(ca: "/no/ca")) == "open /no/ca: no such file or directory")
    #expect(load(.init(ca: "/no/ca", skipVerify: true)) == "open /no/ca: no such file or directory")
  }

  @Test(arguments: [TLSVersion.tls12, .tls13]) func serverNames(_ version: TLSVersion) throws {
    let (upstream, listen) = try (world.upstream(), world.listen(most: version))
    for name in [nil, "etcd.test", "etcd.test.", "ETCD.test", "a.wild.test", "127.0.0.1"] {
      #expect(try shaken(upstream, listen, name: name).client.state == .open, "\(name ?? "anybody")")
    }
    for name in ["other.test", "common.test", "a.b.wild.test", "127.0.0.2", "::1"] {
      let pair = try shaken(upstream, listen, name: name)
      let words = pair.client.words
      #expect(
        words.hasPrefix("tls: failed to verify certificate: x509: certificate is not valid for the name"))
      #expect(words.contains("for \(name)") && words.contains("--endpoints"), "\(words)")
      #expect(pair.server.words.contains("remote error: tls: "), "\(pair.server.words)")
      #expect(try shaken(world.upstream(skipVerify: true), listen, name: name).client.state == .open)
    }
    for name in ["", ".", "a\0b"] {
      #expect(words { _ = try TLSSession(client: upstream, serverName: name) }.hasPrefix("server name "))
    }
  }

  @Test(arguments: [TLSVersion.tls12, .tls13]) func serverCertificates(_ version: TLSVersion) throws {
    let unknown = try shaken(world.upstream(ca: "stranger"), world.listen(most: version))
    #expect(
      unknown.client.words
        == "tls: failed to verify certificate: x509: certificate signed by unknown authority "
        + "(unable to get local issuer certificate, serial \(try serial("server")), subject /CN=common.test, "
        + "for etcd.test): etcd's certificate does not come from an authority in --cacert")
    #expect(unknown.server.words.contains("remote error: tls: unknown certificate authority"))
    #expect(unknown.server.words.contains("the client does not trust this proxy's certificate"))
    let old = try shaken(world.upstream(), world.listen("old", most: version))
    #expect(
      old.client.words.contains("x509: certificate has expired or is not yet valid (certificate has expired"))
    #expect(old.server.words.contains("remote error: tls: expired certificate"))
    // Without --cacert the system's authorities count, which know nothing of ours.
    let system = try shaken(world.upstream(ca: nil), world.listen(most: version))
    #expect(system.client.words.contains("signed by unknown authority"))
    // A certificate in the file is trusted itself, as in Go, though it did not sign itself.
    #expect(try shaken(world.upstream(ca: "server"), world.listen(most: version)).client.state == .open)
  }

  @Test func cleartextUpstream() throws {
    let pair = try TLSPair(world.upstream(), world.listen())
    pair.client.start()
    pair.client.feed([0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3])
    #expect(
      pair.client.words.hasPrefix(
        "tls: first record does not look like a TLS handshake (wrong version number"))
    #expect(pair.client.words.hasSuffix("the endpoint speaks cleartext; use http:// in --endpoints"))
  }

  // MARK: Client certificates

  private func serial(_ name: String) throws -> String {
    let child = try Child(["x509", "-in", world.path("\(name).pem"), "-noout", "-serial"])
    defer { child.stop() }
    return try #require(child.line(after: "serial=")).lowercased()
  }

  @Test(arguments: [TLSVersion.tls12, .tls13]) func clientCertificates(_ version: TLSVersion) throws {
    let listen = try world.listen(ca: "ca", most: version)
    #expect(listen.demandsCertificates)
    let good = try shaken(world.upstream("alice"), listen)
    #expect(good.server.state == .open && good.server.session.peerCommonName == "alice")
    #expect(try shaken(world.upstream("anonymous"), listen).server.session.peerCommonName == nil)

    let none = try shaken(world.upstream(), listen)
    #expect(
      none.server.words
        == "tls: client didn't provide a certificate (peer did not return a certificate): "
        + "--trusted-ca-file is set, so that clients need --cert and --key")
    #expect(none.client.words.contains("see --cert and --key"), "\(none.client.words)")

    let strange = try shaken(world.upstream("strange"), listen)
    #expect(strange.server.words.contains("signed by unknown authority"), "\(strange.server.words)")
    #expect(strange.server.words.contains("serial \(try serial("strange")), subject /O=people/CN=alice"))
    #expect(strange.server.words.hasSuffix("does not come from an authority in --trusted-ca-file"))

    let old = try shaken(world.upstream("old"), listen)
    #expect(old.server.words.contains("has expired or is not yet valid"))
  }

  @Test(arguments: ["crl.pem", "crl.der"], [TLSVersion.tls12, .tls13])
  func revokedClients(_ list: String, _ version: TLSVersion) throws {
    let listen = try world.listen(ca: "ca", crl: list, most: version)
    #expect(try shaken(world.upstream("alice"), listen).server.state == .open)
    let revoked = try shaken(world.upstream("mallory"), listen)
    #expect(
      revoked.server.words
        == "transport: certificate revoked (certificate revoked, serial \(try serial("mallory")), "
        + "subject /O=people/CN=mallory): it is listed in --client-crl-file")
    #expect(revoked.client.words.contains("remote error: tls: revoked certificate"))
    // Without a list nobody knows.
    #expect(
      try shaken(world.upstream("mallory"), world.listen(ca: "ca", most: version)).server.state == .open)
    // Without client certificates there is nothing to look up.
    #expect(
      try shaken(world.upstream("mallory"), world.listen(crl: list, most: version)).server.state == .open)
  }

  @Test func listsOfOthers() throws {
    // A list of another authority locks nobody out, as with etcd.
    #expect(
      try shaken(world.upstream("alice"), world.listen(ca: "ca", crl: "stranger-crl.pem")).server.state
        == .open)
    // What a list of another authority names is refused, as with etcd; so it goes by the serial number alone.
    let folder = try TLSWorld.temporaryFolder()
    writeFile(
      "\(folder)/index",
      "R\t300101000000Z\t260101000000Z\t\(try serial("alice").uppercased())\tunknown\t/CN=x\n")
    let config = readFile(world.path("stranger.cnf")).replacing(
      world.path("stranger.index"), with: "\(folder)/index")
    writeFile("\(folder)/cnf", config)
    try world.openssl(["ca", "-batch", "-config", "\(folder)/cnf", "-gencrl", "-out", "\(folder)/crl.pem"])
    let files = TLSListenFiles(
      cert: world.path("server.pem"), key: world.path("server.key"), trustedCA: world.path("ca.pem"),
      crl: "\(folder)/crl.pem")
    let listen = try TLSServerContext.load(files, listening: "")
    #expect(
      try shaken(world.upstream("alice"), listen).server.words.hasPrefix("transport: certificate revoked"))
    #expect(try shaken(world.upstream("anonymous"), listen).server.state == .open)
    // Several lists in one file all count.
    writeFile("\(folder)/crl.pem", readFile("\(folder)/crl.pem") + readFile(world.path("crl.pem")))
    let both = try TLSServerContext.load(files, listening: "")
    for name in ["alice", "mallory"] {
      #expect(try shaken(world.upstream(name), both).server.words.hasPrefix("transport: certificate revoked"))
    }
    #expect(try shaken(world.upstream("anonymous"), both).server.state == .open)
  }

  @Test func listsThatExpiredOrWereForged() throws {
    let folder = try TLSWorld.temporaryFolder()
    let list = "\(folder)/crl.pem"
    let ca = ["ca", "-batch", "-config", world.path("ca.cnf"), "-gencrl"]
    try world.openssl(
      ca + ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z", "-out", list])
    let files = TLSListenFiles(
      cert: world.path("server.pem"), key: world.path("server.key"), trustedCA: world.path("ca.pem"),
      crl: list)
    let stale = try TLSServerContext.load(files, listening: "")
    #expect(try shaken(world.upstream("alice"), stale).server.state == .open)
    #expect(try shaken(world.upstream("mallory"), stale).server.words.contains("revoked"))
    // The last byte of a list is its signature's.
    try world.openssl(["crl", "-in", world.path("crl.pem"), "-outform", "DER", "-out", list])
    let descriptor = open(list, O_RDWR)
    var last: UInt8 = 0
    let end = lseek(descriptor, -1, Int32(SEEK_END))
    _ = pread(descriptor, &last, 1, end)
    last ^= 1
    _ = pwrite(descriptor, &last, 1, end)
    close(descriptor)
    let forged = try shaken(world.upstream("alice"), TLSServerContext.load(files, listening: ""))
    #expect(forged.server.words.hasSuffix("--client-crl-file is not signed by the authority it names"))
  }

  // MARK: Cipher suites

  @Test func suitesKeepTheirOrder() throws {
    let names = [
      "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
      "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ]
    for first in names {
      let suites = [first] + names.filter { $0 != first }
      let pair = try shaken(world.upstream(), world.listen(suites: suites, most: .tls12))
      #expect(pair.server.session.cipherSuite == first && pair.client.session.cipherSuite == first)
    }
    let listen = try world.listen(suites: ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"], most: .tls12)
    let legacy = try shaken(world.upstream(), listen)
    #expect(legacy.server.session.cipherSuite == "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")
    #expect(
      try shaken(world.upstream(), world.listen()).server.session.cipherSuite == "TLS_AES_128_GCM_SHA256")
    // Of no use with this certificate, but known.
    let insecure = try world.listen(suites: ["TLS_RSA_WITH_AES_128_CBC_SHA256"], most: .tls12)
    #expect(insecure.warnings.isEmpty)
    #expect(
      try shaken(world.upstream(), insecure).server.words
        == "tls: no cipher suite supported by both client and server (no shared cipher): see --listen-cipher-suites"
    )
  }

  @Test func suitesThatAreNone() throws {
    #expect(
      words { _ = try world.listen(suites: ["AES128-SHA"]) } == "unexpected TLS cipher suite \"AES128-SHA\"")
    #expect(words { _ = try world.listen(suites: [""]) } == "unexpected TLS cipher suite \"\"")
    let partly = try world.listen(
      suites: ["TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"], most: .tls12)
    #expect(partly.warnings.count == 1 && partly.warnings[0].contains("ECDHE-ECDSA-RC4-SHA is left out"))
    #expect(try shaken(world.upstream(), partly).server.state == .open)
    let only13 = try world.listen(suites: ["TLS_AES_128_GCM_SHA256"])
    #expect(only13.warnings.count == 1)
    #expect(try shaken(world.upstream(), only13).server.session.version == .tls13)
    #expect(
      words { _ = try world.listen(suites: ["TLS_AES_128_GCM_SHA256"], most: .tls12) }.contains(
        "no cipher suite"))
  }

  // MARK: Endpoint schemes

  @Test(
    arguments: [
      (["http://a:1"], true, false), (["http://a:1"], false, false), (["https://a:1"], false, true),
      (["HTTPS://a:1"], false, true), (["unixs:/a"], false, true), (["unixs:///a"], false, true),
      (["a:1"], true, true), (["a:1"], false, false), (["unix:/a"], true, true), (["unix:/a"], false, false),
      (["unixs:2379"], false, false), (["https:2379"], false, false), ([], true, true), ([], false, false),
    ] as [([String], Bool, Bool)])
  func firstEndpointDecides(_ endpoints: [String], _ configured: Bool, _ usesTLS: Bool) {
    let security = UpstreamSecurity(endpoints: endpoints, configured: configured)
    #expect(security.usesTLS == usesTLS && security.warning == nil)
  }

  @Test func endpointsThatDisagree() {
    let mixed = UpstreamSecurity(endpoints: ["https://a:1", "b:1", "http://c:1"], configured: false)
    #expect(mixed.usesTLS)
    #expect(
      mixed.warning
        == "all endpoints are reached with TLS, although \"http://c:1\" asks for cleartext: the first endpoint, "
        + "\"https://a:1\", decides; give all endpoints the same scheme")
    let open = UpstreamSecurity(endpoints: ["a:1", "https://b:1"], configured: false)
    #expect(!open.usesTLS && open.warning?.contains("the first endpoint has no scheme") == true)
    #expect(UpstreamSecurity(endpoints: ["http://a:1", "b:1", "unix:/c"], configured: true).warning == nil)
  }
}
