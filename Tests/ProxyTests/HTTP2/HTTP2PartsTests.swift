import CNGHTTP2
import Reactor
import Simulation
import Testing

@testable import Proxy

/// The parts of the HTTP/2 machine by themselves.
@Suite struct HTTP2PartsTests {
  @Test func theTableIsADictionary() {
    var random = SimRandom(seed: 5)
    let pool = BlockPool()
    do {
      // A seed of 1 lets numbers collide as they like.
      for seed: UInt32 in [1, 0x9E37_79B9] {
        let context = HTTP2Context(settings: HTTP2TestConnection.settings(), pool: pool, hashSeed: seed)
        var table = StreamTable(context)
        var model: [UInt32: Int32] = [:]
        for round in 0..<20_000 {
          let id = UInt32(1 + random.below(round / 40 % 2 == 0 ? 3000 : 40)) << 12 | 1
          let inserts = round / 3000 % 2 == 0 ? 700 : 200
          if let place = table.find(id) {
            #expect(table[place].sendWindow == model[id])
            if !random.chance(inserts) {
              table.remove(place)
              model[id] = nil
            }
          } else {
            #expect(model[id] == nil)
            if random.chance(inserts) {
              var stream = HTTP2Stream()
              stream.id = id
              stream.sendWindow = Int32(round)
              let place = table.insert(stream)
              #expect(table[place].id == id)
              model[id] = Int32(round)
            }
          }
          #expect(table.count == model.count)
        }
        let all = (0..<table.capacity).map { table[$0].id }.filter { $0 != 0 }
        #expect(Set(all) == Set(model.keys) && all.count == model.count)
        for id in model.keys { table.find(id).map { table.remove($0) } }
        #expect(table.count == 0 && table.capacity <= 64)
        #expect(table.find(0) == nil)
      }
    }
    #expect(pool.bytesInUse == 0)
  }

  @Test func listsKeepFieldsInOrder() {
    let list = HeaderList()
    for round in 0..<3 {
      list.removeAll()
      for number in 0..<100 {
        let value = Array("\(round) \(String(repeating: "v", count: number * 7))".utf8)
        value.withUnsafeBytes { list.append(number == 50 ? "token" : "some-name", $0) }
      }
      #expect(list.count == 100)
      #expect(headerText(list[99].value) == "\(round) " + String(repeating: "v", count: 693))
      #expect(headerText(list.value(of: .token)!) == "\(round) " + String(repeating: "v", count: 350))
      #expect(list.value(of: .authorization) == nil)
    }
  }

  @Test func knownNamesAreFound() {
    let names: [(StaticString, HeaderKind)] = [
      (":method", .method), (":scheme", .scheme), (":authority", .authority), (":path", .path),
      (":status", .status), (":protocol", .otherPseudo), (":", .otherPseudo), ("content-type", .contentType),
      ("te", .te), ("user-agent", .userAgent), ("grpc-timeout", .grpcTimeout), ("grpc-status", .grpcStatus),
      ("grpc-message", .grpcMessage), ("grpc-encoding", .grpcEncoding),
      ("grpc-accept-encoding", .grpcAcceptEncoding), ("grpc-status-details-bin", .grpcStatusDetails),
      ("token", .token), ("authorization", .authorization), ("hasleader", .hasleader),
      ("client-api-version", .clientAPIVersion), ("content-length", .contentLength), ("host", .host),
      ("connection", .connectionSpecific), ("keep-alive", .connectionSpecific),
      ("proxy-connection", .connectionSpecific), ("transfer-encoding", .connectionSpecific),
      ("upgrade", .connectionSpecific), ("tokem", .other), ("", .other), ("x", .other),
    ]
    for (name, kind) in names {
      #expect(HeaderKind(name: UnsafeRawBufferPointer(name)) == kind, "\(name)")
      #expect(kind.isPseudo == "\(name)".hasPrefix(":"), "\(name)")
    }
  }

  /// What the literal encoder writes, nghttp2 reads, with what must not be indexed marked so.
  @Test func literalsAreReadByNGHTTP2() {
    var random = SimRandom(seed: 9)
    var decoder = HeaderDecoder()
    let received = HeaderList()
    for _ in 0..<300 {
      let sent = HeaderList()
      let names = [
        ":status", "content-type", "content-length", "grpc-status",
        "x-" + String(repeating: "n", count: random.below(300)),
      ]
      for _ in 0..<random.below(20) {
        let name = Array(random.pick(names).utf8)
        let value = (0..<random.size(upTo: 20_000)).map { _ in UInt8(random.below(256)) }
        let value2 = random.chance(200) ? Array("200".utf8) : value
        name.withUnsafeBytes { name in
          value2.withUnsafeBytes { sent.append(name, $0, neverIndexed: random.chance(300)) }
        }
      }
      var room = [UInt8](repeating: 0xAA, count: LiteralEncoder.bound(sent))
      let length = room.withUnsafeMutableBytes { LiteralEncoder.encode(sent, to: $0) }
      // Only the representation matters here, so the rules for messages are off.
      let verdict = room.withUnsafeBytes {
        decoder.decode($0.first(length), as: .discarded, into: received, limit: 1 << 20)
      }
      #expect(verdict.outcome == .fine)
      #expect(
        Self.inflate(room.prefix(length))
          == (0..<sent.count).map { position in
            let field = sent[position]
            let isIndexed = field.kind == .status && headerText(field.value) == "200"
            return Self.Field(
              name: Array(field.name), value: Array(field.value), never: field.neverIndexed && !isIndexed)
          })
    }
  }

  struct Field: Equatable {
    var name: [UInt8]
    var value: [UInt8]
    var never: Bool
  }

  static func inflate(_ bytes: ArraySlice<UInt8>) -> [Field] {
    var inflater: OpaquePointer?
    nghttp2_hd_inflate_new(&inflater)
    defer { nghttp2_hd_inflate_del(inflater) }
    var result: [Field] = []
    var rest = Array(bytes)
    while true {
      var field = nghttp2_nv()
      var flags: Int32 = 0
      let used = nghttp2_hd_inflate_hd2(inflater, &field, &flags, rest, rest.count, 1)
      guard used >= 0 else { return [] }
      rest.removeFirst(used)
      if flags & 2 != 0 {
        result.append(
          Field(
            name: Array(UnsafeBufferPointer(start: field.name, count: field.namelen)),
            value: Array(UnsafeBufferPointer(start: field.value, count: field.valuelen)),
            never: field.flags & 1 != 0))
      }
      if flags & 1 != 0 { return result }
      if flags & 2 == 0, rest.isEmpty { return result }
    }
  }

  @Test func aClientKeepsSecretsOutOfTheTable() {
    let connection = HTTP2TestConnection.open(.client)
    let fields = headerList(goodRequest)
    let secret = Array("hunter2hunter2".utf8)
    secret.withUnsafeBytes {
      fields.append(UnsafeRawBufferPointer("token" as StaticString), $0, neverIndexed: true)
    }
    fields.append("grpc-timeout", "123456u")
    for _ in 0..<2 {
      _ = connection.session.open(fields, endStream: true, user: someHandle)
    }
    let blocks = connection.sent().map(\.payload)
    #expect(blocks[0].count > blocks[1].count, "the table is used")
    let seen = Self.inflate(blocks[0][...])
    #expect(
      seen.filter(\.never).map { String(decoding: $0.name, as: UTF8.self) } == ["token", "grpc-timeout"])
  }

  @Test func noBytesBreakTheMachine() {
    for seed in Seeds.run(300) {
      var random = SimRandom(seed: seed)
      let connection = HTTP2TestConnection.open(random.chance(500) ? .server : .client)
      for _ in 0..<5 {
        _ = connection.session.open(headerList(goodRequest), endStream: false, user: someHandle)
      }
      for _ in 0..<30 {
        let frame = TestFrame(
          type: UInt8(random.below(11)), flags: UInt8(random.below(256)), stream: UInt32(random.below(12)),
          payload: (0..<random.size(upTo: 200)).map { _ in UInt8(random.below(256)) })
        connection.feed(random.chance(100) ? Array(frame.bytes.dropLast(random.below(5))) : frame.bytes)
        _ = connection.send(UInt32(random.below(12)), frame.payload, end: random.chance(100))
        connection.session.credit(UInt32(random.below(12)), 0)
        if random.chance(300) { _ = connection.sent() }
      }
    }
  }
}
