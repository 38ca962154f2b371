import Glibc
import Reactor
import Testing

@testable import Proxy

/// Files that change, and the certificate that the proxy makes for itself.
@Suite struct TLSFilesTests {
  private let world: TLSWorld
  private let folder: String

  init() throws {
    world = try TLSWorld.shared.get()
    folder = try TLSWorld.temporaryFolder()
  }

  private func copy(_ name: String, to target: String) {
    writeFile("\(target).new", readFile(world.path(name)))
    rename("\(target).new", target)
  }

  // MARK: Changes

  @Test func changesAreSeenOnceAndWhenSettled() {
    let path = "\(folder)/a"
    writeFile(path, "one")
    let watch = Watch([path, "\(folder)/b"])
    #expect(!watch.poll() && !watch.poll())
    writeFile(path, "other")
    #expect(!watch.poll())
    writeFile(path, "still being written")
    #expect(!watch.poll())
    #expect(watch.poll())
    #expect(!watch.poll())
    // Same size and time of change, another file.
    writeFile("\(folder)/new", "still being written")
    var times = [timespec(), timespec()]
    var status = stat()
    stat(path, &status)
    times = [status.st_atim, status.st_mtim]
    utimensat(AT_FDCWD, "\(folder)/new", &times, 0)
    rename("\(folder)/new", path)
    #expect(!watch.poll())
    #expect(watch.poll())
    // Coming and going.
    writeFile("\(folder)/b", "")
    #expect(!watch.poll())
    #expect(watch.poll())
    unlink("\(folder)/b")
    #expect(!watch.poll())
    #expect(watch.poll() && !watch.poll())
    // A change that is taken back in between is none.
    writeFile("\(folder)/b", "")
    #expect(!watch.poll())
    unlink("\(folder)/b")
    #expect(!watch.poll() && !watch.poll())
  }

  @Test func swappedLinksAreSeen() {
    // As Kubernetes mounts secrets: file -> ..data/file, ..data -> a folder with a date for a name.
    for day in ["monday", "tuesday"] {
      mkdir("\(folder)/\(day)", 0o700)
      writeFile("\(folder)/\(day)/file", "same")
    }
    symlink("monday", "\(folder)/data")
    symlink("data/file", "\(folder)/file")
    let watch = Watch(["\(folder)/file"])
    #expect(!watch.poll())
    symlink("tuesday", "\(folder)/data.new")
    rename("\(folder)/data.new", "\(folder)/data")
    #expect(!watch.poll())
    #expect(watch.poll() && !watch.poll())
  }

  @Test func contextsFollowTheirFiles() throws {
    let files = TLSListenFiles(
      cert: "\(folder)/cert", key: "\(folder)/key", trustedCA: world.path("ca.pem"), crl: "\(folder)/crl")
    copy("server.pem", to: files.cert)
    copy("server.key", to: files.key)
    copy("stranger-crl.pem", to: files.crl)
    let reloader = try Reloader(files)
    let name = { (context: TLSServerContext) in
      let pair = try TLSPair(world.upstream("mallory"), context)
      pair.shake()
      return pair.server.state == .open ? pair.client.session.peerCommonName : pair.server.words
    }
    #expect(reloader.poll() == .unchanged)
    #expect(try name(reloader.current) == "common.test")

    copy("alice.pem", to: files.cert)
    #expect(reloader.poll() == .unchanged)
    #expect(
      reloader.poll()
        == .failed("\(files.key): tls: private key does not match public key of \(files.cert)"))
    #expect(reloader.poll() == .unchanged)
    #expect(try name(reloader.current) == "common.test")
    unlink(files.key)
    #expect(reloader.poll() == .unchanged)
    #expect(reloader.poll() == .failed("open \(files.key): no such file or directory"))

    // Certificate, key and list at once, and sessions that exist stay with what they have.
    let before = reloader.current
    copy("server.pem", to: files.cert)
    copy("server.key", to: files.key)
    copy("crl.pem", to: files.crl)
    #expect(reloader.poll() == .unchanged)
    #expect(reloader.poll() == .renewed)
    #expect(try name(reloader.current)?.hasPrefix("transport: certificate revoked") == true)
    #expect(try name(before) == "common.test")
    #expect(reloader.reload() == .renewed)
    let broken = { () throws(TLSFailure) -> TLSServerContext in throw TLSFailure("no") }
    #expect(throws: TLSFailure.self) { _ = try TLSReloader([], load: broken) }
  }

  // MARK: Self-signed

  private static let now = Int64(1_900_000_000)
  private static let day = Int64(86400)

  private func provide(_ hosts: [String] = ["proxy.test"], at now: Int64 = now, years: Int = 1) throws
    -> SelfSignedCertificate.Outcome
  {
    try SelfSignedCertificate.provide(in: "\(folder)/data", hosts: hosts, years: years, now: now)
  }

  @Test func madeKeptAndRenewed() throws {
    let files = SelfSignedCertificate.files(in: "\(folder)/data")
    #expect(
      files.cert == "\(folder)/data/fixtures/proxy/cert.pem" && files.key.hasSuffix("/fixtures/proxy/key.pem")
    )
    #expect(try provide() == .made)
    var status = stat()
    stat(files.key, &status)
    #expect(status.st_mode & 0o777 == 0o600)
    let first = readFile(files.cert)
    #expect(try provide() == .kept && readFile(files.cert) == first)
    let context = try TLSServerContext.load(files, listening: "")
    #expect(context.expiries.map(\.seconds) == [Self.now + 365 * Self.day])

    #expect(try provide(at: Self.now + 334 * Self.day) == .kept)
    #expect(try provide(at: Self.now + 336 * Self.day) == .renewed("it expires within 30 days"))
    #expect(readFile(files.cert) != first)
    #expect(try provide(at: Self.now + 900 * Self.day) == .renewed("it has expired"))
    #expect(try provide(["other.test", "127.0.0.1"]) == .renewed("it is for none of other.test, 127.0.0.1"))
    #expect(try provide(["127.0.0.1", "more.test"]) == .kept)

    writeFile(files.cert, "no certificate")
    #expect(
      try provide() == .renewed("\(files.cert): tls: failed to find any PEM data in certificate input"))
    unlink(files.key)
    #expect(try provide() == .renewed("\(files.key) is missing"))
    unlink(files.cert)
    #expect(try provide() == .renewed("\(files.cert) is missing"))
    copy("server.pem", to: files.cert)
    #expect(
      try provide() == .renewed("\(files.key): tls: private key does not match public key of \(files.cert)"))
    #expect(try provide(years: .max) == .kept)
    unlink(files.cert)
    unlink(files.key)
    #expect(try provide(years: .max) == .made)
    #expect(try provide() == .kept)
  }

  @Test func foldersThatCannotBeMade() throws {
    writeFile("\(folder)/data", "a file")
    #expect(throws: TLSFailure.self) { try provide() }
  }

  @Test func hostsThatClientsMayUse() {
    let usual = ["localhost", "127.0.0.1", "::1"]
    let hosts = { (listen: [String], advertise: String) in
      SelfSignedCertificate.hosts(listen: listen, advertise: advertise, machine: "box")
    }
    #expect(hosts(["127.0.0.1:23790"], "127.0.0.1:23790") == ["127.0.0.1", "box", "localhost", "::1"])
    #expect(hosts(["0.0.0.0:1", "[::]:1", ":1"], "") == ["box"] + usual)
    #expect(
      hosts(["10.0.0.1:1", "[fe80::2]:1"], "https://etcd.test:9/x") == [
        "10.0.0.1", "fe80::2", "etcd.test", "box",
      ] + usual)
    #expect(hosts(["a,DNS:evil.test:1", "unix:/x y:1"], "proxy.test") == ["proxy.test", "box"] + usual)
  }

  @Test func clientsCanVerifyIt() throws {
    let now = Int64(time(nil))
    _ = try provide(["proxy.test", "10.1.2.3", "::1"], at: now)
    let files = SelfSignedCertificate.files(in: "\(folder)/data")
    let listen = try TLSServerContext.load(files, listening: "")
    let upstream = try TLSClientContext.load(TLSUpstreamFiles(ca: files.cert))
    for (name, good) in [("proxy.test", true), ("10.1.2.3", true), ("::1", true), ("other.test", false)] {
      let pair = try TLSPair(upstream, listen, name: name)
      pair.shake()
      #expect((pair.client.state == .open) == good, "\(name): \(pair.client.words)")
    }
    let child = try Child(["x509", "-in", files.cert, "-noout", "-subject", "-purpose"])
    #expect(child.line(after: "subject=") == "O = etcd")
    #expect(child.line(after: "SSL server : ") == "Yes")
    child.stop()
    let verified = try Child([
      "verify", "-x509_strict", "-CAfile", files.cert, "-verify_hostname", "proxy.test", files.cert,
    ])
    #expect(verified.wait() == 0)
  }
}

/// As `TLSFileWatch`, but `#expect` may change it.
private final class Watch {
  private var watch: TLSFileWatch
  init(_ paths: [String]) { watch = TLSFileWatch(paths) }
  func poll() -> Bool { watch.poll() }
}

/// The same for `TLSReloader`.
private final class Reloader {
  private var reloader: TLSReloader<TLSServerContext>
  init(_ files: TLSListenFiles) throws {
    reloader = try TLSReloader(files.paths) { () throws(TLSFailure) in
      try TLSServerContext.load(files, listening: "")
    }
  }
  var current: TLSServerContext { reloader.current }
  func poll() -> TLSReloader<TLSServerContext>.Outcome { reloader.poll() }
  func reload() -> TLSReloader<TLSServerContext>.Outcome { reloader.reload() }
}
