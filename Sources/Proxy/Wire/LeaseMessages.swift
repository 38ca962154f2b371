internal import Reactor

/// A lease asked for.
struct LeaseGrantRequest: Equatable {
  var seconds: Int64
  /// 0 leaves the choice to etcd.
  var id: Int64 = 0

  init(seconds: Int64, id: Int64 = 0) {
    self.seconds = seconds
    self.id = id
  }

  func encode(into output: inout ByteBuffer) {
    output.appendField(1, seconds)
    output.appendField(2, id)
  }
}

/// A lease granted.
struct LeaseGrantResponse: Equatable {
  private(set) var header = ResponseHeader()
  private(set) var id: Int64 = 0
  private(set) var seconds: Int64 = 0

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .varint): id = field.signed
      case (3, .varint): seconds = field.signed
      default: break
      }
    }
  }
}

/// A request that holds nothing but a lease: a heartbeat, or the end of it.
struct LeaseRequest: Equatable {
  var id: Int64

  init(id: Int64) { self.id = id }

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    id = 0
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      guard field.number == 1 else { continue }
      // As etcd's decoder, which does not take a field for an unknown one because of its wire type.
      guard field.wire == .varint else { throw ProtoMalformed() }
      id = field.signed
    }
  }

  func encode(into output: inout ByteBuffer) { output.appendField(1, id) }
}

/// The answer to a heartbeat; 0 seconds say that the lease is gone.
struct LeaseKeepAliveResponse: Equatable {
  var header = ResponseHeader()
  var id: Int64
  var seconds: Int64

  init(header: ResponseHeader, id: Int64, seconds: Int64) {
    self.header = header
    self.id = id
    self.seconds = seconds
  }

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    (id, seconds) = (0, 0)
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .varint): id = field.signed
      case (3, .varint): seconds = field.signed
      default: break
      }
    }
  }

  func encode(into output: inout ByteBuffer) {
    header.encode(into: &output)
    output.appendField(2, id)
    output.appendField(3, seconds)
  }
}

/// Asks for the time and, if told so, the keys of a lease.
struct LeaseTimeToLiveRequest: Equatable {
  var id: Int64
  var wantsKeys = false

  func encode(into output: inout ByteBuffer) {
    output.appendField(1, id)
    output.appendField(2, wantsKeys)
  }
}

/// The time and the keys of a lease; −1 seconds say that there is none. Points into the message.
@safe struct LeaseTimeToLiveResponse {
  private(set) var seconds: Int64 = 0
  /// The keys attached to it.
  let keys: ProtoSequence

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    unsafe keys = ProtoSequence(of: 5, in: message)
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      if field.number == 3, field.wire == .varint { seconds = field.signed }
    }
  }
}
