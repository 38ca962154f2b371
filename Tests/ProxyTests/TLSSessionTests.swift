import Glibc
import Reactor
import Testing

@testable import Proxy

/// Sessions of ours with each other, in memory.
@Suite struct TLSSessionTests {
  private let world: TLSWorld

  init() throws { world = try TLSWorld.shared.get() }

  private static let versions = [TLSVersion.tls12, .tls13]

  @Test(arguments: versions) func handshakeAndTalk(_ version: TLSVersion) throws {
    let pair = try TLSPair(world.upstream(), world.listen(most: version))
    pair.shake()
    #expect(pair.client.state == .open && pair.server.state == .open)
    for end in [pair.client, pair.server] {
      #expect(end.session.version == version)
      #expect(end.session.negotiatedProtocol == .http2)
      #expect(!end.session.isResumed)
    }
    #expect(pair.client.session.peerCommonName == "common.test" && pair.server.session.peerCommonName == nil)
    #expect(pair.client.send(Array("question".utf8)) == .open)
    #expect(pair.server.send(Array("answer".utf8)) == .open)
    pair.talk()
    #expect(pair.server.takePlain() == Array("question".utf8))
    #expect(pair.client.takePlain() == Array("answer".utf8))
    pair.client.close()
    pair.talk()
    #expect(pair.server.state == .closedByPeer && pair.client.state == .open)
    // The other direction is still good.
    #expect(pair.server.send(Array("late".utf8)) == .closedByPeer)
    pair.server.close()
    pair.talk()
    #expect(pair.client.takePlain() == Array("late".utf8) && pair.client.state == .closedByPeer)
  }

  @Test(arguments: versions) func everyCut(_ version: TLSVersion) throws {
    let (upstream, listen) = try (world.upstream("alice"), world.listen(ca: "ca", most: version))
    var (cut, longest) = (1, 2)
    while cut < longest {
      let pair = try TLSPair(upstream, listen)
      pair.client.start()
      pair.talk { bytes, offset in
        longest = max(longest, offset + bytes.count)
        let place = min(max(cut - offset, 0), bytes.count)
        return [bytes[..<place], bytes[place...]]
      }
      try #require(
        pair.client.state == .open && pair.server.state == .open, "cut \(cut): \(pair.server.words)")
      #expect(pair.server.session.peerCommonName == "alice")
      cut += 5
    }
    #expect(longest > 1000)
  }

  @Test(arguments: versions) func byteByByte(_ version: TLSVersion) throws {
    let pair = try TLSPair(world.upstream(), world.listen(most: version))
    let single = { (bytes: [UInt8], _: Int) in bytes.indices.map { bytes[$0...$0] } }
    pair.client.start()
    pair.talk(single)
    pair.client.send([1, 2, 3])
    pair.talk(single)
    #expect(pair.server.takePlain() == [1, 2, 3])
  }

  @Test func handshakeAndDataInOnePiece() throws {
    let pair = try TLSPair(world.upstream(), world.listen())
    pair.client.start()
    pair.server.feed(pair.client.takeOut())
    pair.client.feed(pair.server.takeOut())
    // The client is open before the server has its last message.
    #expect(pair.client.state == .open && pair.server.state == .handshaking)
    let data = [UInt8](repeating: 7, count: 600_000)
    pair.client.send(data)
    #expect(pair.server.feed(pair.client.takeOut()) == .open)
    #expect(pair.server.takePlain() == data)
  }

  @Test(arguments: versions) func tenMegabytes(_ version: TLSVersion) throws {
    let pair = try TLSPair(world.upstream(), world.listen(most: version))
    pair.shake()
    var random = TLSRandom(state: 1)
    let data = (0..<(10 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    for (from, to) in [(pair.client, pair.server), (pair.server, pair.client)] {
      var (sent, received) = (0, 0)
      while sent < data.count {
        let size = min(1 + random.below(90_000), data.count - sent)
        from.send(Array(data[sent..<sent + size]))
        sent += size
        var cipher = from.takeOut()[...]
        while !cipher.isEmpty {
          let piece = cipher.prefix(1 + random.below(20_000))
          cipher = cipher.dropFirst(piece.count)
          to.feed(piece)
        }
        let plain = to.takePlain()
        try #require(plain[...] == data[received..<received + plain.count])
        received += plain.count
      }
      #expect(received == data.count)
    }
    #expect(pair.client.held == 0)
  }

  @Test func nothingIsTakenBeforeAndAfter() throws {
    let pair = try TLSPair(world.upstream(), world.listen())
    #expect(pair.client.send([1]) == .handshaking && pair.client.takeOut().isEmpty)
    pair.client.close()
    #expect(pair.client.takeOut().isEmpty)
    pair.server.feed(Array("GET / HTTP/1.1\r\n\r\n".utf8))
    #expect(pair.server.words.contains("tls: first record does not look like a TLS handshake (http request)"))
    let state = pair.server.state
    #expect(pair.server.feed([1, 2, 3]) == state && pair.server.send([1]) == state)
    pair.server.close()
    #expect(pair.server.takeOut().isEmpty)
  }

  // MARK: Bytes with mistakes

  @Test func flightsWithMistakesEndInAState() throws {
    let (upstream, listen) = try (world.upstream("alice"), world.listen(ca: "ca"))
    var failed = 0
    for seed in UInt64(0)..<3000 {
      var random = TLSRandom(state: seed)
      let pair = try TLSPair(upstream, listen)
      pair.client.start()
      var left = 1 + random.below(3)
      pair.talk { bytes, _ in
        var bytes = bytes
        if left > 0, random.below(2) == 0, !bytes.isEmpty {
          left -= 1
          bytes[random.below(bytes.count)] ^= 1 << UInt8(random.below(8))
          if random.below(8) == 0 { bytes.removeLast(random.below(bytes.count)) }
        }
        return [bytes[...]]
      }
      if !pair.client.words.isEmpty || !pair.server.words.isEmpty { failed += 1 }
    }
    #expect(failed > 300)
  }

  @Test(arguments: versions) func recordsWithMistakesFail(_ version: TLSVersion) throws {
    let (upstream, listen) = try (world.upstream(), world.listen(most: version))
    for seed in UInt64(0)..<300 {
      var random = TLSRandom(state: seed)
      let pair = try TLSPair(upstream, listen)
      pair.shake()
      pair.client.send([UInt8](repeating: 1, count: 1 + random.below(3000)))
      var bytes = pair.client.takeOut()
      // Not the length: a longer record is waited for.
      let place = [0, 5 + random.below(bytes.count - 5)][random.below(2)]
      bytes[place] ^= 1 << UInt8(random.below(8))
      pair.server.feed(bytes)
      #expect(!pair.server.words.isEmpty, "seed \(seed)")
      #expect(pair.server.takePlain().isEmpty)
      // The alert tells the other end.
      pair.client.feed(pair.server.takeOut())
      #expect(pair.client.words.contains("remote error: tls: "), "seed \(seed): \(pair.client.words)")
    }
  }

  @Test func noiseEndsInAState() throws {
    let (upstream, listen) = try (world.upstream(), world.listen())
    var failed = 0
    for seed in UInt64(0)..<3000 {
      var random = TLSRandom(state: seed)
      let pair = try TLSPair(upstream, listen)
      let end = seed % 2 == 0 ? pair.client : pair.server
      if seed % 2 == 0 { end.start() }
      if seed % 3 == 0 { pair.shake() }
      var bytes = (0..<random.below(2000)).map { _ in UInt8(random.below(256)) }
      if seed % 5 != 0 { bytes = [UInt8(20 + random.below(4)), 3, 3, 0, UInt8(random.below(200))] + bytes }
      end.feed(bytes)
      if !end.words.isEmpty { failed += 1 }
    }
    #expect(failed > 2000)
  }

  @Test func anEndlessHandshakeIsGivenUp() throws {
    let pair = try TLSPair(world.upstream(), world.listen())
    // Pieces of a handshake message of 128 KiB, each in a record, and then another.
    let record: [UInt8] =
      [22, 3, 1, 0x40, 0] + [1, 0, 0xff, 0xff] + [UInt8](repeating: 0, count: 0x4000 - 4)
    for _ in 0..<40 where pair.server.state == .handshaking { pair.server.feed(record) }
    #expect(!pair.server.words.isEmpty)
  }

  // MARK: Memory

  /// In a process of its own, where nobody else takes memory. Measured: 20 KiB, with a client's certificate
  /// 24 KiB.
  @Test(.enabled(if: getenv("RINGWAY_SANITIZER") == nil, "sanitizers have memory of their own"))
  func anIdleServerSessionIsSmall() async throws {
    let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent]) {
      let world = try TLSWorld.shared.get()
      let pool = BlockPool()
      var ends: [TLSEnd] = []
      for (listen, upstream) in [
        (try world.listen(), try world.upstream()), (try world.listen(ca: "ca"), try world.upstream("alice")),
      ] {
        var before = 0
        for round in 0..<520 {
          let pair = try TLSPair(upstream, listen, pool: pool)
          pair.shake()
          for end in [pair.client, pair.server] { end.send([UInt8](repeating: 1, count: 40_000)) }
          pair.talk()
          _ = (pair.server.takePlain(), pair.client.takePlain())
          try #require(pair.server.state == .open)
          if round > 20 { ends.append(pair.server) }
          if round == 20 { before = TLSMemory.resident() }
        }
        print("idle:\((TLSMemory.resident() - before) / 499):")
      }
    }
    let output = String(decoding: try #require(result).standardOutputContent, as: UTF8.self)
    let sizes = output.split(separator: "\n").filter { $0.hasPrefix("idle:") }
      .compactMap { Int($0.split(separator: ":")[1]) }
    #expect(sizes.count == 2 && sizes.allSatisfy { (1000..<40 << 10).contains($0) }, "\(sizes)")
  }
}

/// The memory that this process has in use, as the kernel sees it.
private enum TLSMemory {
  static func resident() -> Int {
    let words = readFile("/proc/self/statm").split(separator: " ")
    return (Int(words[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
  }
}

/// SplitMix64: the same bytes for the same seed.
struct TLSRandom {
  var state: UInt64

  mutating func below(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return Int((mixed ^ mixed >> 31) % UInt64(bound))
  }
}
