import Glibc
import Reactor
import Synchronization

@testable import Proxy

/// A temporary folder with two authorities and certificates of one of them, made by the `openssl` command
/// once for all tests and removed when the process ends.
struct TLSWorld: Sendable {
  static let shared = Result { try TLSWorld() }

  let folder: String

  func path(_ name: String) -> String { "\(folder)/\(name)" }

  private init() throws {
    folder = try Self.temporaryFolder()
    for name in ["ca", "stranger"] { try authority(name) }
    let names = "subjectAltName=DNS:etcd.test,DNS:*.wild.test,IP:127.0.0.1"
    try sign("server", "/CN=common.test", ["-addext", names])
    try sign("old", "/CN=old.test", ["-addext", names], dates: ["20200101000000Z", "20200201000000Z"])
    for name in ["alice", "mallory"] { try sign(name, "/O=people/CN=\(name)", []) }
    try sign("anonymous", "/O=people", [])
    try sign("strange", "/O=people/CN=alice", [], by: "stranger")
    try ca("ca", ["-revoke", path("mallory.pem")])
    try ca("ca", ["-gencrl", "-out", path("crl.pem")])
    try ca("stranger", ["-gencrl", "-out", path("stranger-crl.pem")])
    try openssl(["crl", "-in", path("crl.pem"), "-outform", "DER", "-out", path("crl.der")])
    try openssl([
      "ec", "-in", path("server.key"), "-aes128", "-passout", "pass:secret", "-out", path("locked.key"),
    ])
  }

  // MARK: Folders

  private static let folders = Mutex<[String]>([])

  /// A folder that is removed when the process ends.
  static func temporaryFolder() throws -> String {
    var template = Array("/tmp/ringway-tls-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Certificates.Trouble(command: "mkdtemp") }
    let folder = String(decoding: template.dropLast().map(UInt8.init), as: UTF8.self)
    let isFirst = folders.withLock { folders in
      folders.append(folder)
      return folders.count == 1
    }
    if isFirst {
      atexit {
        TLSWorld.folders.withLock { folders in _ = system("rm -rf \(folders.joined(separator: " "))") }
      }
    }
    return folder
  }

  // MARK: openssl

  func openssl(_ arguments: [String]) throws {
    let child = try Child(arguments)
    guard child.wait() == 0 else { throw Certificates.Trouble(command: arguments.joined(separator: " ")) }
  }

  private func authority(_ name: String) throws {
    try openssl(
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3"]
        + ["-keyout", path("\(name).key"), "-out", path("\(name).pem"), "-subj", "/CN=\(name)"])
    let lines = [
      "[ca]", "default_ca=own", "[own]", "database=\(path("\(name).index"))", "new_certs_dir=\(folder)",
      "rand_serial=yes", "default_md=sha256", "policy=any", "default_crl_days=3", "default_days=2",
      "certificate=\(path("\(name).pem"))", "private_key=\(path("\(name).key"))", "unique_subject=no",
      "copy_extensions=copy", "[any]", "organizationName=optional", "commonName=optional", "",
    ]
    save("\(name).cnf", lines.joined(separator: "\n"))
    save("\(name).index", "")
  }

  private func ca(_ name: String, _ arguments: [String]) throws {
    try openssl(["ca", "-batch", "-config", path("\(name).cnf")] + arguments)
  }

  private func sign(
    _ name: String, _ subject: String, _ more: [String], dates: [String] = [], by authority: String = "ca"
  ) throws {
    try openssl(
      [
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
        subject,
      ]
        + ["-keyout", path("\(name).key"), "-out", path("\(name).csr")] + more)
    let range = dates.isEmpty ? [] : ["-startdate", dates[0], "-enddate", dates[1]]
    try ca(
      authority, ["-notext", "-in", path("\(name).csr"), "-out", path("\(name).pem")] + range)
  }

  func save(_ name: String, _ text: String) { writeFile(path(name), text) }

  // MARK: Contexts

  /// The listener's files: `server` unless told otherwise.
  func listen(
    _ name: String = "server", ca: String? = nil, crl: String? = nil, suites: [String] = [],
    least: TLSVersion? = nil, most: TLSVersion? = nil
  ) throws -> TLSServerContext {
    let files = TLSListenFiles(
      cert: path("\(name).pem"), key: path("\(name).key"), trustedCA: ca.map { path("\($0).pem") } ?? "",
      crl: crl.map(path) ?? "", cipherSuites: suites, minVersion: least, maxVersion: most)
    return try TLSServerContext.load(files, listening: "127.0.0.1:1")
  }

  /// The client's, which may have a common name here: it plays the proxy's clients.
  func upstream(_ name: String? = nil, ca: String? = "ca", skipVerify: Bool = false) throws
    -> TLSClientContext
  {
    let files = TLSUpstreamFiles(
      cert: name.map { path("\($0).pem") } ?? "", key: name.map { path("\($0).key") } ?? "",
      ca: ca.map { path("\($0).pem") } ?? "", skipVerify: skipVerify)
    return try TLSClientContext.make(files) { _ in }
  }
}

func writeFile(_ path: String, _ text: String) {
  let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  _ = write(descriptor, text, text.utf8.count)
  close(descriptor)
}

func readFile(_ path: String) -> String {
  let descriptor = open(path, O_RDONLY)
  var room = [UInt8](repeating: 0, count: 1 << 16)
  let count = max(0, read(descriptor, &room, room.count))
  close(descriptor)
  return String(decoding: room[..<count], as: UTF8.self)
}

// MARK: - Sessions

/// A session with its buffers.
final class TLSEnd {
  let session: TLSSession
  /// Bytes that went over the line.
  private(set) var (sent, received) = (0, 0)
  private var plain: ByteBuffer
  private var out: ByteBuffer
  /// Behind the buffers, which it outlives.
  private let pool: BlockPool

  init(_ session: TLSSession, _ pool: BlockPool = BlockPool()) {
    self.session = session
    self.pool = pool
    plain = ByteBuffer(pool)
    out = ByteBuffer(pool)
  }

  var state: TLSSession.State { session.state }
  /// Bytes of memory of its buffers.
  var held: Int { pool.bytesInUse }
  var words: String { if case .failed(let words) = state { words } else { "" } }

  func start() { session.start(out: &out) }
  func close() { session.close(out: &out) }

  /// What it wants to send, taken away.
  func takeOut() -> [UInt8] {
    defer { out.removeAll() }
    sent += out.count
    return Array(out.bytes)
  }

  /// What it has read, taken away.
  func takePlain() -> [UInt8] {
    defer { plain.removeAll() }
    return Array(plain.bytes)
  }

  @discardableResult func feed(_ bytes: some Collection<UInt8>) -> TLSSession.State {
    received += bytes.count
    return Array(bytes).withUnsafeBytes { session.receive($0, plain: &plain, out: &out) }
  }

  @discardableResult func send(_ bytes: [UInt8]) -> TLSSession.State {
    bytes.withUnsafeBytes { session.send($0, out: &out) }
  }
}

/// Both ends of one connection in memory.
struct TLSPair {
  let client: TLSEnd
  let server: TLSEnd

  init(
    _ upstream: TLSClientContext, _ listen: TLSServerContext, name: String? = "etcd.test",
    pool: BlockPool = BlockPool()
  ) throws {
    client = TLSEnd(try TLSSession(client: upstream, serverName: name), pool)
    server = TLSEnd(try TLSSession(server: listen), pool)
  }

  /// Lets both ends talk until they have nothing to say; `pieces` cuts what goes over the line.
  func talk(_ pieces: (_ bytes: [UInt8], _ offset: Int) -> [ArraySlice<UInt8>] = { bytes, _ in [bytes[...]] })
  {
    var offsets = (toServer: 0, toClient: 0)
    while true {
      let (up, down) = (client.takeOut(), server.takeOut())
      if up.isEmpty, down.isEmpty { return }
      for piece in pieces(up, offsets.toServer) { server.feed(piece) }
      for piece in pieces(down, offsets.toClient) { client.feed(piece) }
      offsets.toServer += up.count
      offsets.toClient += down.count
    }
  }

  func shake() {
    client.start()
    talk()
  }
}
