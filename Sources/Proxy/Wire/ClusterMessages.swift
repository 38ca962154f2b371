internal import Reactor

/// A member of the cluster, or what is shown as one.
struct Member: Hashable, Sendable {
  var id: UInt64 = 0
  /// Empty as long as the member has not started.
  var name = ""
  var peerURLs: [String] = []
  var clientURLs: [String] = []
  var isLearner = false

  init(name: String, clientURLs: [String]) {
    self.name = name
    self.clientURLs = clientURLs
  }

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .varint): id = field.scalar
      case (2, .bytes): name = field.text
      case (3, .bytes): peerURLs.append(field.text)
      case (4, .bytes): clientURLs.append(field.text)
      case (5, .varint): isLearner = field.isTrue
      default: break
      }
    }
  }

  /// Appends the member as field `number` of an answer.
  func encode(as number: Int, into output: inout ByteBuffer) {
    let mark = output.openMessage(number)
    output.appendField(1, unsigned: id)
    output.appendField(2, name)
    for url in peerURLs { output.appendElement(3, url) }
    for url in clientURLs { output.appendElement(4, url) }
    output.appendField(5, isLearner)
    output.closeMessage(mark)
  }
}

/// The members of a cluster.
struct MemberListResponse: Equatable, Sendable {
  var header = ResponseHeader()
  var members: [Member] = []

  init(header: ResponseHeader, members: [Member]) {
    self.header = header
    self.members = members
  }

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .bytes): members.append(unsafe try Member(field.payload))
      default: break
      }
    }
  }

  func encode(into output: inout ByteBuffer) {
    header.encode(into: &output)
    for member in members { member.encode(as: 2, into: &output) }
  }

  /// Whether a `MemberListRequest` asks for the list as the cluster agreed on it.
  static func isLinearizable(request message: UnsafeRawBufferPointer) throws(ProtoMalformed) -> Bool {
    var reader = unsafe ProtoReader(message)
    var answer = false
    while let field = try reader.next() {
      if field.number == 1, field.wire == .varint { answer = field.isTrue }
    }
    return answer
  }

  /// Appends a `MemberListRequest`.
  static func encodeRequest(isLinearizable: Bool, into output: inout ByteBuffer) {
    output.appendField(1, isLinearizable)
  }
}

/// The state of one member.
struct StatusResponse: Equatable, Sendable {
  private(set) var header = ResponseHeader()
  private(set) var version = ""
  /// Bytes of the store on disk.
  private(set) var size: Int64 = 0
  /// The leader's id, 0 without one.
  private(set) var leader: UInt64 = 0
  private(set) var errors: [String] = []
  private(set) var isLearner = false

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .bytes): version = field.text
      case (3, .varint): size = field.signed
      case (4, .varint): leader = field.scalar
      case (8, .bytes): errors.append(field.text)
      case (10, .varint): isLearner = field.isTrue
      default: break
      }
    }
  }
}

/// Who somebody says to be. The password is of no use here.
struct AuthenticateRequest: Equatable, Sendable {
  var name = ""

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      if field.number == 1, field.wire == .bytes { name = field.text }
    }
  }

  /// Appends a request of the proxy's own.
  static func encode(name: String, password: String, into output: inout ByteBuffer) {
    output.appendField(1, name)
    output.appendField(2, password)
  }
}

/// The token that etcd knows somebody by.
struct AuthenticateResponse: Equatable, Sendable {
  private(set) var header = ResponseHeader()
  private(set) var token: [UInt8] = []

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .bytes): token = unsafe Array(field.payload)
      default: break
      }
    }
  }
}

extension ProtoField {
  /// The content of bytes as text; what is not UTF-8 is replaced.
  var text: String { unsafe String(decoding: payload, as: UTF8.self) }
}
