import Glibc

/// A temporary folder with certificates made by the `openssl` command; removed by `remove`.
struct Certificates {
  struct Trouble: Error { let command: String }

  let folder: String
  /// The authority that signed the server's certificate, and one that has nothing to do with it.
  var authority: String { "\(folder)/ca.pem" }
  var stranger: String { "\(folder)/stranger.pem" }
  var server: String { "\(folder)/server.pem" }
  var key: String { "\(folder)/server.key" }

  init() throws {
    var template = Array("/tmp/ringway-tls-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Trouble(command: "mkdtemp") }
    folder = String(decoding: template.dropLast().map(UInt8.init), as: UTF8.self)
    for name in ["ca", "stranger"] {
      try request(name, ["-subj", "/CN=\(name)"])
    }
    try request(
      "server",
      [
        "-subj", "/CN=common.test", "-CA", authority, "-CAkey", "\(folder)/ca.key",
        "-addext", "subjectAltName=DNS:etcd.test,DNS:*.wild.test,IP:127.0.0.1",
      ])
  }

  private func request(_ name: String, _ more: [String]) throws {
    let base = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    let files = ["-days", "2", "-keyout", "\(folder)/\(name).key", "-out", "\(folder)/\(name).pem"]
    let child = try Child(base + files + more)
    guard child.wait() == 0 else { throw Trouble(command: "openssl req \(name)") }
  }

  func remove() {
    for name in ["ca", "stranger", "server"] {
      unlink("\(folder)/\(name).key")
      unlink("\(folder)/\(name).pem")
    }
    rmdir(folder)
  }
}

/// An `openssl` process with its output in a pipe.
final class Child {
  private let process: pid_t
  private let output: Int32
  private let input: Int32

  init(_ arguments: [String]) throws {
    var (toChild, fromChild): ([Int32], [Int32]) = ([-1, -1], [-1, -1])
    pipe(&toChild)
    pipe(&fromChild)
    for end in toChild + fromChild { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
    posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
    var words: [UnsafeMutablePointer<CChar>?] = (["openssl"] + arguments).map { strdup($0) } + [nil]
    var process = pid_t()
    let failed = posix_spawnp(&process, "openssl", &actions, nil, &words, environ)
    words.forEach { free($0) }
    posix_spawn_file_actions_destroy(&actions)
    close(toChild[0])
    close(fromChild[1])
    (self.process, output, input) = (process, fromChild[0], toChild[1])
    if failed != 0 { throw Certificates.Trouble(command: "openssl") }
  }

  /// The process's exit status once it has ended by itself.
  func wait() -> Int32 {
    var status: Int32 = -1
    waitpid(process, &status, 0)
    closeEnds()
    return status
  }

  /// Gives the process input.
  func type(_ text: String) { _ = write(input, text, text.utf8.count) }

  func stop() {
    kill(process, SIGKILL)  // others may be blocked, as they are in the thread that started it
    _ = wait()
  }

  private func closeEnds() {
    close(output)
    close(input)
  }

  /// Reads its output up to a line that begins with `start`; what follows in that line.
  func line(after start: String) -> String? {
    var line = ""
    var byte: UInt8 = 0
    while read(output, &byte, 1) == 1 {
      guard byte == UInt8(ascii: "\n") else {
        line.unicodeScalars.append(UnicodeScalar(byte))
        continue
      }
      if line.hasPrefix(start) { return String(line.dropFirst(start.count)) }
      line = ""
    }
    return nil
  }
}

/// `openssl s_server` on a free port of 127.0.0.1.
struct OpenSSLServer {
  let port: UInt16
  private let child: Child

  init(_ certificates: Certificates, _ options: [String] = []) throws {
    child = try Child(
      ["s_server", "-accept", "127.0.0.1:0", "-cert", certificates.server, "-key", certificates.key] + options
    )
    guard let address = child.line(after: "ACCEPT "), let colon = address.lastIndex(of: ":"),
      let port = UInt16(address[address.index(after: colon)...])
    else {
      child.stop()
      throw Certificates.Trouble(command: "openssl s_server \(options)")
    }
    self.port = port
  }

  func stop() { child.stop() }
}

/// `recv(2)`, again when it was interrupted: a receive with a time limit is by a ring that the same thread had before, which
/// the kernel takes apart later.
func receive(_ descriptor: Int32, _ room: inout [UInt8], _ count: Int) -> Int {
  while true {
    let received = recv(descriptor, &room, count, 0)
    guard received < 0, errno == EINTR else { return received }
  }
}

/// A blocking connection to a port of 127.0.0.1 that gives up after ten seconds.
func connection(to port: UInt16) -> Int32 {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var patience = timeval(tv_sec: 10, tv_usec: 0)
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  var name = sockaddr_in()
  name.sin_family = sa_family_t(AF_INET)
  name.sin_port = port.bigEndian
  name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  withUnsafePointer(to: &name) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      _ = connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
    }
  }
  return descriptor
}
