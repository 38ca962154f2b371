import Glibc
import Reactor
import Testing

@testable import Proxy

/// Sessions of ours with `openssl s_client` and `s_server`, over TCP.
@Suite(.serialized) struct TLSInteropTests {
  private let world: TLSWorld

  init() throws { world = try TLSWorld.shared.get() }

  /// Carries bytes between a session and its socket until `isDone` or the other end has gone.
  @discardableResult
  private func drive(_ end: TLSEnd, _ descriptor: Int32, until isDone: () -> Bool) -> Bool {
    var room = [UInt8](repeating: 0, count: 4096)
    while true {
      let out = end.takeOut()
      if !out.isEmpty { Glibc.send(descriptor, out, out.count, Int32(MSG_NOSIGNAL)) }
      if isDone() { return true }
      let count = receive(descriptor, &room, room.count)
      guard count > 0 else { return false }
      end.feed(room[..<count])
    }
  }

  /// Reads until `text` is among what came.
  private func hear(_ text: String, _ end: TLSEnd, _ descriptor: Int32) -> Bool {
    var heard: [UInt8] = []
    return drive(end, descriptor) {
      heard += end.takePlain()
      return String(decoding: heard, as: UTF8.self).contains(text)
    }
  }

  // MARK: s_client

  /// Runs `s_client` against a session of ours; `body` gets both once the handshake has ended.
  private func serve(
    _ context: TLSServerContext, _ options: [String], _ body: (TLSEnd, Int32, Child) throws -> Void
  ) throws {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = bind(listener, $0, size)
        listen(listener, 1)
        getsockname(listener, $0, &size)
      }
    }
    let port = UInt16(bigEndian: name.sin_port)
    let child = try Child(
      ["s_client", "-connect", "127.0.0.1:\(port)", "-CAfile", world.path("ca.pem")] + options)
    defer { child.stop() }
    let descriptor = accept(listener, nil, nil)
    var patience = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    defer { close(descriptor) }
    let end = TLSEnd(try TLSSession(server: context))
    drive(end, descriptor) { end.state != .handshaking }
    try body(end, descriptor, child)
  }

  @Test(arguments: ["-tls1_2", "-tls1_3"]) func client(_ version: String) throws {
    let options = [version, "-alpn", "http/1.1,h2", "-verify_hostname", "etcd.test", "-verify_return_error"]
    try serve(world.listen(), options) { end, descriptor, child in
      try #require(end.state == .open, "\(end.words)")
      #expect(end.session.negotiatedProtocol == .http2)
      #expect(end.session.version == (version == "-tls1_2" ? .tls12 : .tls13))
      #expect(end.session.cipherSuite?.hasPrefix("TLS_") == true)
      child.type("ping\n")
      #expect(hear("ping\n", end, descriptor))
      end.send(Array("pong\n".utf8))
      end.close()
      drive(end, descriptor) { true }
      #expect(child.line(after: "ALPN protocol: ") == "h2")
      #expect(child.line(after: "pong") == "")
    }
  }

  @Test(arguments: ["-tls1_2", "-tls1_3"]) func protocols(_ version: String) throws {
    try serve(world.listen(), [version, "-alpn", "http/1.1"]) { end, _, _ in
      #expect(end.state == .open && end.session.negotiatedProtocol == .http11)
    }
    try serve(world.listen(), [version]) { end, _, _ in
      #expect(end.state == .open && end.session.negotiatedProtocol == nil)
    }
    try serve(world.listen(), [version, "-alpn", "h3,spdy/1"]) { end, _, _ in
      #expect(end.words.hasPrefix("tls: client requested unsupported application protocols"))
    }
  }

  @Test func versions() throws {
    for (least, most, offered) in [(TLSVersion.tls13, nil, "-tls1_2"), (.tls12, TLSVersion.tls12, "-tls1_3")]
    {
      try serve(world.listen(least: least, most: most), [offered]) { end, _, _ in
        #expect(end.words.hasPrefix("tls: client offered only unsupported versions (unsupported protocol)"))
        #expect(end.words.hasSuffix("see --tls-min-version and --tls-max-version"))
      }
    }
    // TLS 1.1 is refused whatever the flags say.
    try serve(world.listen(), ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]) { end, _, _ in
      #expect(end.words.contains("unsupported"), "\(end.words)")
    }
  }

  @Test(arguments: ["-tls1_2", "-tls1_3"]) func resumption(_ version: String) throws {
    let file = "\(try TLSWorld.temporaryFolder())/session"
    let certificate = ["-cert", world.path("alice.pem"), "-key", world.path("alice.key")]
    let context = try world.listen(ca: "ca")
    let visit = { (context: TLSServerContext, options: [String]) -> Bool in
      var resumed = false
      try self.serve(context, [version] + certificate + options) { end, descriptor, child in
        try #require(end.state == .open, "\(end.words)")
        #expect(end.session.peerCommonName == "alice")
        resumed = end.session.isResumed
        // The ticket comes with or before this.
        end.send(Array("done\n".utf8))
        drive(end, descriptor) { true }
        #expect(child.line(after: "done") == "")
      }
      return resumed
    }
    #expect(try !visit(context, ["-sess_out", file]))
    #expect(try visit(context, ["-sess_in", file]))
    // After a reload everybody is verified anew, since the list of revoked ones may be another.
    #expect(try !visit(world.listen(ca: "ca", crl: "crl.pem"), ["-sess_in", file]))
  }

  @Test func newKeysAndNoRenegotiation() throws {
    try serve(world.listen(), ["-tls1_3"]) { end, descriptor, child in
      // A line of its own for s_client and s_server is one that they read alone.
      // The tickets that follow a handshake have come by then, and what comes next are the keys.
      child.type("before\n")
      #expect(hear("before\n", end, descriptor))
      let before = end.received
      child.type("K\n")
      drive(end, descriptor) { end.received > before }
      child.type("after\n")
      #expect(hear("after\n", end, descriptor) && end.state == .open)
      end.send(Array("new keys\n".utf8))
      drive(end, descriptor) { true }
      #expect(child.line(after: "new keys") == "")
    }
    try serve(world.listen(), ["-tls1_2"]) { end, descriptor, child in
      let before = end.sent
      child.type("R\n")
      drive(end, descriptor) { end.sent > before }
      // An alert, and no certificates again.
      #expect((1..<100).contains(end.sent - before) && end.state == .open)
    }
  }

  // MARK: s_server

  /// Runs a session of ours against `s_server`; `body` gets both once the handshake has ended.
  private func visit(
    _ context: TLSClientContext, _ options: [String], name: String? = "etcd.test",
    _ body: (TLSEnd, Int32, Child) throws -> Void
  ) throws {
    let child = try Child(
      [
        "s_server", "-accept", "127.0.0.1:0", "-cert", world.path("server.pem"), "-key",
        world.path("server.key"),
      ]
        + ["-CAfile", world.path("ca.pem")] + options)
    defer { child.stop() }
    let address = try #require(child.line(after: "ACCEPT "))
    let descriptor = connection(to: try #require(address.split(separator: ":").last.flatMap { UInt16($0) }))
    defer { close(descriptor) }
    let end = TLSEnd(try TLSSession(client: context, serverName: name))
    end.start()
    drive(end, descriptor) { end.state != .handshaking }
    try body(end, descriptor, child)
  }

  @Test(arguments: ["-tls1_2", "-tls1_3"]) func server(_ version: String) throws {
    let demand = ["-Verify", "1", "-verify_return_error", "-alpn", "h2", "-rev", version]
    for name in [nil, "etcd.test", "x.wild.test", "127.0.0.1"] {
      try visit(world.upstream("alice"), demand, name: name) { end, descriptor, _ in
        try #require(end.state == .open, "\(end.words)")
        #expect(end.session.negotiatedProtocol == .http2 && end.session.peerCommonName == "common.test")
        end.send(Array("abcdef\n".utf8))
        #expect(hear("fedcba\n", end, descriptor))
      }
    }
    try visit(world.upstream(), ["-rev", version]) { end, _, _ in
      #expect(end.state == .open && end.session.negotiatedProtocol == nil)
    }
    // With TLS 1.3 the refusal comes after the client's handshake has ended.
    try visit(world.upstream(), demand) { end, descriptor, _ in
      drive(end, descriptor) { !end.words.isEmpty }
      #expect(end.words.hasPrefix("remote error: tls: "), "\(end.words)")
      #expect(end.words.hasSuffix("see --cert and --key"), "\(end.words)")
    }
  }

  @Test func serverWithNewKeys() throws {
    try visit(world.upstream(), ["-tls1_3"]) { end, descriptor, child in
      // Behind the tickets, which come unasked.
      child.type("before\n")
      #expect(hear("before\n", end, descriptor))
      // A line of its own for s_client and s_server is one that they read alone.
      let before = end.received
      child.type("K\n")
      drive(end, descriptor) { end.received > before }
      child.type("after\n")
      #expect(hear("after\n", end, descriptor) && end.state == .open)
      end.send(Array("new keys\n".utf8))
      drive(end, descriptor) { true }
      #expect(child.line(after: "new keys") == "")
    }
    try visit(world.upstream(), ["-tls1_2"]) { end, descriptor, child in
      let before = end.sent
      child.type("r\n")
      drive(end, descriptor) { end.sent > before }
      // An alert, and no certificates again.
      #expect((1..<100).contains(end.sent - before) && end.state == .open)
    }
  }
}
