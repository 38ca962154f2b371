import Reactor
import Testing

@testable import Proxy

/// Messages that the proxy itself reads and writes, held against what Google's protobuf library writes.
@Suite struct WireMessageTests {
  private static let header = ResponseHeader(
    clusterID: 14_841_639_068_965_178_418, memberID: 10_276_657_743_932_975_437, revision: 8, raftTerm: 2)
  private static let headerBytes = NamespaceVectors.bytes(
    "0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118082002")

  private func read<T>(_ hex: String, _ body: (UnsafeRawBufferPointer) throws -> T) rethrows -> T {
    try NamespaceVectors.bytes(hex).withUnsafeBytes { try body($0) }
  }

  private func hex(_ body: (inout ByteBuffer) -> Void) -> String {
    Wire.written(body).map { GoText.hexadecimal(UInt32($0), digits: 2) }.joined()
  }

  @Test func headers() throws {
    #expect(Wire.written { Self.header.encode(into: &$0) } == Self.headerBytes)
    #expect(try Self.headerBytes.withUnsafeBytes { try ResponseHeader.of(answer: $0) } == Self.header)
    // In parts, and with fields in any order, also of another type.
    let parts =
      Wire.field(1, Wire.field(3, number: 5)) + Wire.field(9, "x")
      + Wire.field(1, Wire.field(4, number: 2) + Wire.field(3, number: 6) + Wire.field(2, "no"))
    let merged = try parts.withUnsafeBytes { try ResponseHeader.of(answer: $0) }
    #expect(merged == ResponseHeader(revision: 6, raftTerm: 2))
    #expect(try read("", ResponseHeader.of(answer:)) == ResponseHeader())
  }

  @Test func memberLists() throws {
    let text =
      "0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e01180820021224080912026d311a08687474703a2f2f70"
      + "2208687474703a2f2f612208687474703a2f2f62120e080a1a08687474703a2f2f712801"
    let list = try read(text) { try MemberListResponse($0) }
    var first = Member(name: "m1", clientURLs: ["http://a", "http://b"])
    (first.id, first.peerURLs) = (9, ["http://p"])
    var second = Member(name: "", clientURLs: [])
    (second.id, second.peerURLs, second.isLearner) = (10, ["http://q"], true)
    #expect(list == MemberListResponse(header: Self.header, members: [first, second]))
    #expect(hex { list.encode(into: &$0) } == text)
    #expect(try read("0801") { try MemberListResponse.isLinearizable(request: $0) })
    #expect(try !read("") { try MemberListResponse.isLinearizable(request: $0) })
    #expect(hex { MemberListResponse.encodeRequest(isLinearizable: true, into: &$0) } == "0801")
  }

  @Test func status() throws {
    let status = try read(
      "0a1a08b298eaf1948386fccd0110cdd2918bd2b881cf8e011808200212"
        + "06332e362e31341880a00120092803300242186d656d62657249443a3120616c61726d3a4e4f5350414345"
        + "420178480150015a03332e36"
    ) { try StatusResponse($0) }
    #expect(status.header == Self.header)
    #expect(status.version == "3.6.14")
    #expect(status.size == 20480)
    #expect(status.leader == 9)
    #expect(status.errors == ["memberID:1 alarm:NOSPACE", "x"])
    #expect(status.isLearner)
  }

  @Test func authentication() throws {
    #expect(try read("0a04726f6f7412027077") { try AuthenticateRequest($0) }.name == "root")
    #expect(
      hex { AuthenticateRequest.encode(name: "root", password: "pw", into: &$0) } == "0a04726f6f7412027077")
    let answer = try (Self.headerBytes + NamespaceVectors.bytes("12056162632e37")).withUnsafeBytes {
      try AuthenticateResponse($0)
    }
    #expect(answer.token == Array("abc.7".utf8))
    #expect(answer.header == Self.header)
  }

  @Test func leases() throws {
    #expect(hex { LeaseGrantRequest(seconds: 60, id: 5).encode(into: &$0) } == "083c1005")
    let bytes = Self.headerBytes + NamespaceVectors.bytes("1005183c")
    let granted = try bytes.withUnsafeBytes { try LeaseGrantResponse($0) }
    #expect(granted.id == 5 && granted.seconds == 60 && granted.header == Self.header)
    let beat = try bytes.withUnsafeBytes { try LeaseKeepAliveResponse($0) }
    #expect(beat == LeaseKeepAliveResponse(header: Self.header, id: 5, seconds: 60))
    #expect(Wire.written { beat.encode(into: &$0) } == bytes)
    let negative = "08fdffffffffffffffff01"
    #expect(try read(negative) { try LeaseRequest($0) }.id == -3)
    #expect(hex { LeaseRequest(id: -3).encode(into: &$0) } == negative)
    #expect(hex { LeaseTimeToLiveRequest(id: 5, wantsKeys: true).encode(into: &$0) } == "08051001")
    let vector = try #require(NamespaceVectors.responses.first { $0.method == .leaseTimeToLive })
    try vector.plain.withUnsafeBytes { message in
      let answer = try LeaseTimeToLiveResponse(message)
      #expect(answer.seconds == 9)
      #expect(try Self.all(answer.keys) == [Array("a".utf8), Array("bc".utf8)])
    }
  }

  private static func all(_ sequence: ProtoSequence) throws -> [[UInt8]] {
    var sequence = sequence
    var all: [[UInt8]] = []
    while let next = try sequence.next() { all.append(Array(next)) }
    return all
  }

  @Test func ranges() throws {
    var request = RangeRequest(key: Array("a".utf8), rangeEnd: Array("b".utf8), limit: 3)
    (request.isSerializable, request.keysOnly, request.countOnly) = (true, true, true)
    #expect(hex { request.encode(into: &$0) } == "0a01611201621803380140014801")
    let vector = try #require(NamespaceVectors.responses.first { $0.name == "range" })
    try vector.plain.withUnsafeBytes { message in
      let answer = try RangeResponse(message)
      #expect(answer.header == Self.header)
      #expect(answer.hasMore && answer.count == 9)
      var sequence = answer.keyValues
      let first = try KeyValue(try #require(try sequence.next()))
      #expect(Array(first.key) == Array("a".utf8) && Array(first.value) == Array("vvv".utf8))
      #expect(first.createRevision == 5 && first.modRevision == 7 && first.version == 2 && first.lease == 0)
      let second = try KeyValue(try #require(try sequence.next()))
      #expect(second.key.count == 125 && second.lease == 3)
      #expect(try sequence.next() == nil)
    }
  }

  @Test func writes() {
    let put = PutRequest(key: Array("a".utf8), value: Array("b".utf8), lease: 4)
    #expect(hex { put.encode(into: &$0) } == "0a01611201621804")
    let large = PutRequest(key: Array("a".utf8), value: [UInt8](repeating: 0x62, count: 130), lease: 4)
    let text = "128d01128a010a0161128201" + String(repeating: "62", count: 130) + "1804"
    #expect(hex { large.encodeTransaction(into: &$0) } == text)
    #expect(hex { DeleteRequest(key: Array("a".utf8)).encode(into: &$0) } == "0a0161")
  }

  @Test func watchRequests() throws {
    let text = "0a140a0177120178180320012a020001300138044001"
    var create = WatchCreateRequest(key: Array("w".utf8), rangeEnd: Array("x".utf8), startRevision: 3)
    (create.wantsProgress, create.wantsPrevious, create.allowsFragments, create.watchID) = (
      true, true, true, 4
    )
    (create.leavesOutPuts, create.leavesOutDeletes) = (true, true)
    #expect(hex { create.encode(into: &$0) } == text)
    #expect(try read(text) { try WatchRequest($0) } == .create(create))
    // Filters one by one, and one that is not known.
    let plain = Wire.field(1, Wire.field(5, number: 1) + Wire.field(5, number: 9))
    var filtered = WatchCreateRequest()
    filtered.leavesOutDeletes = true
    #expect(try plain.withUnsafeBytes { try WatchRequest($0) } == .create(filtered))
    let parts = Wire.field(1, Wire.field(1, "w")) + Wire.field(1, Wire.field(2, "x"))
    #expect(
      try parts.withUnsafeBytes { try WatchRequest($0) }
        == .create(WatchCreateRequest(key: Array("w".utf8), rangeEnd: Array("x".utf8))))
    let last = parts + Wire.field(2, Wire.field(1, number: 7))
    #expect(try last.withUnsafeBytes { try WatchRequest($0) } == .cancel(watchID: 7))
    #expect(hex { WatchRequest.encodeCancel(watchID: 7, into: &$0) } == "12020807")
    #expect(hex { WatchRequest.encodeProgress(into: &$0) } == "1a00")
    #expect(try read("1a00") { try WatchRequest($0) } == .progress)
    #expect(try read("2a00") { try WatchRequest($0) } == .unknown)
  }

  @Test func watchAnswers() throws {
    let vector = try #require(NamespaceVectors.responses.first { $0.name == "watch" })
    try vector.plain.withUnsafeBytes { message in
      let answer = try WatchResponse(message)
      #expect(answer.header == Self.header && answer.watchID == 4 && answer.eventCount == 2)
      #expect(!answer.isCreated && !answer.isCanceled && !answer.isFragment && !answer.isProgress)
      var events = answer.events
      let put = try WatchEvent(try #require(try events.next()))
      #expect(!put.isDelete && put.previous != nil)
      let removal = try WatchEvent(try #require(try events.next()))
      #expect(removal.isDelete && removal.previous == nil)
      #expect(try KeyValue(removal.keyValue).modRevision == 8)
      #expect(try events.next() == nil)
    }
    let end = try #require(NamespaceVectors.responses.first { $0.name == "watchEnd" })
    try end.plain.withUnsafeBytes { message in
      let answer = try WatchResponse(message)
      #expect(
        answer.isCanceled && answer.compactRevision == 90 && Array(answer.cancelReason) == Array("why".utf8))
      #expect(!answer.isProgress)
    }
    #expect(try Self.headerBytes.withUnsafeBytes { try WatchResponse($0).isProgress })
  }

  @Test func nothingTraps() {
    var storm = ByteStorm(seed: 13)
    let samples = (NamespaceVectors.requests + NamespaceVectors.responses).map(\.plain)
    storm.inputs(20_000, from: samples) { input in
      input.withUnsafeBytes { bytes in
        _ = try? MemberListResponse(bytes)
        _ = try? StatusResponse(bytes)
        _ = try? AuthenticateRequest(bytes)
        _ = try? AuthenticateResponse(bytes)
        _ = try? LeaseGrantResponse(bytes)
        _ = try? LeaseKeepAliveResponse(bytes)
        _ = try? LeaseRequest(bytes)
        _ = try? WatchRequest(bytes)
        _ = try? ResponseHeader.of(answer: bytes)
        if let answer = try? RangeResponse(bytes) {
          _ = try? Self.all(answer.keyValues).map { try $0.withUnsafeBytes { try KeyValue($0).version } }
        }
        if let answer = try? WatchResponse(bytes) {
          _ = try? Self.all(answer.events).map { try $0.withUnsafeBytes { try WatchEvent($0).isDelete } }
        }
        if let answer = try? LeaseTimeToLiveResponse(bytes) { _ = try? Self.all(answer.keys) }
      }
    }
  }
}

@Suite struct RegistrationTests {
  private func read(_ text: String) -> Registration? { Registration(Array(text.utf8)) }

  @Test func writesWhatEtcdWrites() {
    let registration = Registration(address: "10.0.0.1:23790", name: "host-1")
    #expect(
      String(decoding: registration.json, as: UTF8.self)
        == #"{"Op":0,"Addr":"10.0.0.1:23790","Metadata":"{\"name\":\"host-1\"}"}"#)
    let odd = Registration(address: "http://a/?x=1&y=<2>\u{2028}\"\\\n\u{1}", name: nil)
    #expect(
      String(decoding: odd.json, as: UTF8.self)
        == #"{"Op":0,"Addr":"http://a/?x=1\u0026y=\u003c2\u003e\u2028\"\\\n\u0001","Metadata":null}"#)
  }

  @Test func readsWhatItWrites() {
    var storm = ByteStorm(seed: 17)
    for _ in 0..<500 {
      let name = storm.below(4) == 0 ? nil : String(decoding: storm.noise(upTo: 20), as: UTF8.self)
      let address = "a" + String(decoding: storm.noise(upTo: 30), as: UTF8.self)
      var registration = Registration(address: address, name: name)
      registration.isRemoval = storm.below(2) == 0
      #expect(Registration(registration.json) == registration)
    }
  }

  @Test func readsWhatOthersWrite() {
    let plain = Registration(address: "a:1", name: "h")
    #expect(read(#" { "addr" : "a:1" , "METADATA" : "{\"Name\":\"h\"}" } "#) == plain)
    #expect(
      read(#"{"Op":0,"Addr":"a:1","Metadata":{"x":[1,{"y":null}],"name":"h"},"New":[{},[],-1.5e+3,true]}"#)
        == plain)
    #expect(read(#"{"Addr":"b","Addr":"\u0061:\u0031","Metadata":"{\"name\":\"h\"}"}"#) == plain)
    #expect(
      read(#"{"Addr":"a\/\ud83d\ude00\ud83d\u0041\ude00\b\f\n\r\t"}"#)?.address
        == "a/😀\u{FFFD}A\u{FFFD}\u{8}\u{C}\n\r\t")
    var removal = Registration(address: "a:1", name: nil)
    removal.isRemoval = true
    #expect(read(#"{"Op":1,"Addr":"a:1"}"#) == removal)
    // Metadata that makes no sense costs the name only.
    for metadata in ["null", "7", "[]", #""""#, #""plain""#, #""{\"name\":5}""#, #"{"name":5}"#, #""{} x""#] {
      #expect(
        read(#"{"Addr":"a:1","Metadata":\#(metadata)}"#) == Registration(address: "a:1", name: nil),
        "\(metadata)")
    }
  }

  @Test func refusesTheRest() {
    let deep = String(repeating: "[", count: 100_000)
    for text in [
      "", "null", "[]", "7", #""a""#, "{", "{}", #"{"Addr":""}"#, #"{"Addr":5}"#, #"{"Addr":"a"} x"#,
      #"{"Addr":"a""#,
      #"{"Addr":"a",}"#, #"{"Addr" "a"}"#, #"{"Addr":"\x"}"#, #"{"Addr":"\u12g4"}"#, #"{"Addr":"\u12"#,
      "{\"Addr\":\"a\n\"}",
      #"{"Addr":"a","x":\#(deep)"#, #"{"Addr":"a","x":}"#,
    ] { #expect(read(text) == nil, "\(text.prefix(40))") }
    var storm = ByteStorm(seed: 19)
    let sample = Registration(address: "http://a:1", name: "h").json
    storm.inputs(5000, from: [sample]) { _ = Registration($0) }
  }
}
