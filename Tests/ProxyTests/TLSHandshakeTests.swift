import Glibc
import Testing

@testable import Proxy

/// What came of a handshake.
private struct Outcome {
  var state = TLSHandshake.State.going
  var sawPeer = false
  var verified: Bool?
  /// Everything that the server sent.
  var bytes: [UInt8] = []

  var words: String? { if case .failed(let words) = state { words } else { nil } }
}

@Suite(.serialized) struct TLSHandshakeTests {
  /// Runs a handshake with whatever listens at a port, in pieces of `piece` bytes, until it ends or the peer
  /// does.
  private func shake(
    _ port: UInt16, _ authority: String?, _ name: String?, piece: Int = 4096
  ) throws -> Outcome {
    var handshake = try TLSHandshake(
      context: TLSContext.client(trustedCAFile: authority), serverName: name)
    let descriptor = connection(to: port)
    defer { close(descriptor) }
    let hello = handshake.start()
    send(descriptor, hello, hello.count, Int32(MSG_NOSIGNAL))
    var outcome = Outcome()
    var room = [UInt8](repeating: 0, count: piece)
    while outcome.state == .going {
      let count = receive(descriptor, &room, piece)
      guard count > 0 else { break }
      outcome.bytes += room[..<count]
      let (bytes, state) = room[..<count].withUnsafeBytes { handshake.receive($0) }
      send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
      outcome.state = state
    }
    (outcome.sawPeer, outcome.verified) = (handshake.sawPeer, handshake.certificateVerified)
    return outcome
  }

  private func withServer(
    _ options: [String] = [], _ body: (Certificates, UInt16) throws -> Void
  ) throws {
    let certificates = try Certificates()
    defer { certificates.remove() }
    let server = try OpenSSLServer(certificates, options)
    defer { server.stop() }
    try body(certificates, server.port)
  }

  @Test(arguments: [["-tls1_3"], ["-tls1_2"], ["-alpn", "h2"]])
  func goodCertificate(_ options: [String]) throws {
    try withServer(options) { certificates, port in
      for name in [nil, "etcd.test", "etcd.test.", "ETCD.test", "a.wild.test", "127.0.0.1"] {
        let outcome = try shake(port, certificates.authority, name, piece: 7)
        #expect(outcome.state == .done, "\(name ?? "anybody")")
        #expect(outcome.verified == true && outcome.sawPeer)
      }
    }
  }

  @Test(arguments: ["-tls1_3", "-tls1_2"]) func wrongAuthority(_ version: String) throws {
    try withServer([version]) { certificates, port in
      let outcome = try shake(port, certificates.stranger, "etcd.test")
      #expect(outcome.words == "certificate verify failed: unable to get local issuer certificate")
      #expect(outcome.verified == false && outcome.sawPeer)
      let trusting = try shake(port, nil, "etcd.test")
      #expect(trusting.state == .done && trusting.verified == nil && trusting.sawPeer)
    }
  }

  @Test func wrongName() throws {
    try withServer { certificates, port in
      for name in ["other.test", "common.test", "a.b.wild.test", "127.0.0.2", "::1"] {
        let outcome = try shake(port, certificates.authority, name)
        let isAddress = name.contains("::") || name.hasPrefix("127")
        let cause = isAddress ? "IP address mismatch" : "hostname mismatch"
        #expect(outcome.words == "certificate verify failed: \(cause)")
        #expect(outcome.verified == false && outcome.sawPeer)
      }
    }
  }

  @Test func demandForAClientCertificate() throws {
    try withServer(["-tls1_2", "-Verify", "1", "-verify_return_error"]) { certificates, port in
      let outcome = try shake(port, certificates.authority, "etcd.test")
      #expect(outcome.words?.contains("alert handshake failure") == true)
      #expect(outcome.verified == true && outcome.sawPeer)
    }
  }

  @Test func noCommonVersionOrProtocol() throws {
    try withServer(["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]) { certificates, port in
      let outcome = try shake(port, certificates.authority, "etcd.test")
      #expect(outcome.words != nil && outcome.verified == nil && outcome.sawPeer)
    }
    try withServer(["-alpn", "http/1.1"]) { certificates, port in
      let outcome = try shake(port, certificates.authority, "etcd.test")
      #expect(outcome.words?.contains("no application protocol") == true)
    }
  }

  @Test(arguments: ["HTTP/1.1 400 Bad Request\r\n\r\n", "\0\0\u{18}\u{4}\0\0\0\0\0\0\u{3}", "no TLS at all"])
  func peersWithoutTLS(_ text: String) throws {
    var handshake = try TLSHandshake(context: TLSContext.client(trustedCAFile: nil), serverName: nil)
    _ = handshake.start()
    let (_, state) = Array(text.utf8).withUnsafeBytes { handshake.receive($0) }
    #expect(state == .failed("wrong version number"))
    let sawPeer = handshake.sawPeer
    #expect(!sawPeer)
    // It stays that way.
    let (send, again) = Array(text.utf8).withUnsafeBytes { handshake.receive($0) }
    #expect(send.isEmpty && again == state)
  }

  @Test func helloOffersNameAndProtocol() throws {
    var handshake = try TLSHandshake(context: TLSContext.client(trustedCAFile: nil), serverName: "etcd.test.")
    let hello = handshake.start()
    #expect(hello.first == 22)
    #expect(contains(hello, [0, 9] + Array("etcd.test".utf8)))
    #expect(contains(hello, [0, 3, 2] + Array("h2".utf8)))
    var plain = try TLSHandshake(context: TLSContext.client(trustedCAFile: nil), serverName: "127.0.0.1")
    #expect(!contains(plain.start(), Array("127.0.0.1".utf8)))
  }

  private func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
    bytes.indices.contains { bytes[$0...].starts(with: part) }
  }

  @Test func errorsInWords() throws {
    #expect(throws: TLSFailure("/nowhere/ca.pem: No such file or directory")) {
      try TLSContext.client(trustedCAFile: "/nowhere/ca.pem")
    }
    #expect(throws: TLSFailure.self) { try TLSContext.client(trustedCAFile: "/etc/hosts") }
    let context = try TLSContext.client(trustedCAFile: nil)
    for name in ["", ".", "etcd\0.test", String(repeating: "a", count: 300)] {
      #expect(throws: TLSFailure.self) { _ = try TLSHandshake(context: context, serverName: name) }
    }
  }

  @Test func anEndlessHandshakeIsCutOff() throws {
    var handshake = try TLSHandshake(context: TLSContext.client(trustedCAFile: nil), serverName: nil)
    _ = handshake.start()
    // A ServerHello announced with 16 MiB less one byte, in records of full length.
    let first: [UInt8] = [22, 3, 3, 0x40, 0] + [2, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 16380)
    let oversized = [UInt8](repeating: 0, count: TLSHandshake.mostReceived + 1)
    var (_, state) = first.withUnsafeBytes { handshake.receive($0) }
    if state == .going { (_, state) = oversized.withUnsafeBytes { handshake.receive($0) } }
    #expect(state != .going)
    var fresh = try TLSHandshake(context: TLSContext.client(trustedCAFile: nil), serverName: nil)
    let cut = oversized.withUnsafeBytes { fresh.receive($0).state }
    #expect(cut == .failed("more than 262144 bytes and no end of the handshake"))
  }

  // MARK: Bytes at random

  @Test func randomBytesEndInAState() throws {
    let context = try TLSContext.client(trustedCAFile: nil)
    var failed = 0
    for seed in UInt64(0)..<10_000 {
      var random = Random(state: seed)
      var bytes = (0..<random.below(200)).map { _ in UInt8(random.below(256)) }
      // Half of them begin like a record, to get farther.
      if seed % 2 == 0 {
        let kind = UInt8(random.below(21))
        bytes = [UInt8(20 + random.below(4)), 3, 3, 0, UInt8(random.below(200)), kind] + bytes
      }
      if case .failed = try feed(context, bytes, &random) { failed += 1 }
    }
    #expect(failed > 5000)
  }

  @Test func aServersFlightWithMistakesEndsInAState() throws {
    var flight: [UInt8] = []
    try withServer(["-tls1_2"]) { _, port in flight = try shake(port, nil, nil).bytes }
    try #require(flight.count > 500)
    let context = try TLSContext.client(trustedCAFile: nil)
    var (failed, going) = (0, 0)
    for seed in UInt64(0)..<10_000 {
      var random = Random(state: seed)
      var bytes = flight
      for _ in 0..<random.below(4) { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
      if random.below(4) == 0 { bytes.removeLast(random.below(bytes.count)) }
      switch try feed(context, bytes, &random) {
      case .failed: failed += 1
      case .going: going += 1
      case .done: Issue.record("seed \(seed): a replayed flight was accepted")
      }
    }
    #expect(failed > 1000 && failed + going == 10_000)
  }

  private func feed(
    _ context: TLSContext, _ bytes: [UInt8], _ random: inout Random
  ) throws -> TLSHandshake.State {
    var handshake = try TLSHandshake(context: context, serverName: "etcd.test")
    _ = handshake.start()
    var rest = bytes[...]
    var state = TLSHandshake.State.going
    while !rest.isEmpty, state == .going {
      let piece = rest.prefix(1 + random.below(600))
      rest = rest.dropFirst(piece.count)
      state = piece.withUnsafeBytes { handshake.receive($0).state }
    }
    return state
  }
}

/// SplitMix64: the same bytes for the same seed.
private struct Random {
  var state: UInt64

  mutating func below(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return Int((mixed ^ mixed >> 31) % UInt64(bound))
  }
}
