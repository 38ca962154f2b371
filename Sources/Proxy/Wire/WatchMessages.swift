internal import Reactor

/// A request to watch keys, as a client sends it and as the proxy sends it for a group of clients.
struct WatchCreateRequest: Equatable {
  var key: [UInt8] = []
  /// Empty for a single key, `00` for all keys from `key` on.
  var rangeEnd: [UInt8] = []
  /// 0 for what is to come.
  var startRevision: Int64 = 0
  var wantsProgress = false
  var leavesOutPuts = false
  var leavesOutDeletes = false
  var wantsPrevious = false
  /// 0 leaves the choice to the server.
  var watchID: Int64 = 0
  var allowsFragments = false

  /// Appends a whole `WatchRequest`.
  func encode(into output: inout ByteBuffer) {
    let mark = output.openMessage(1, expecting: key.count + rangeEnd.count + 32)
    output.appendField(1, key)
    output.appendField(2, rangeEnd)
    output.appendField(3, startRevision)
    output.appendField(4, wantsProgress)
    // The filters as a packed list; the first of them is number 0.
    if leavesOutPuts || leavesOutDeletes {
      let filters = output.openMessage(5)
      if leavesOutPuts { output.append(0) }
      if leavesOutDeletes { output.append(1) }
      output.closeMessage(filters)
    }
    output.appendField(6, wantsPrevious)
    output.appendField(7, watchID)
    output.appendField(8, allowsFragments)
    output.closeMessage(mark)
  }

  /// Takes the fields of an encoded `WatchCreateRequest`; called for each part of one in parts.
  fileprivate mutating func merge(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): key = unsafe Array(field.payload)
      case (2, .bytes): rangeEnd = unsafe Array(field.payload)
      case (3, .varint): startRevision = field.signed
      case (4, .varint): wantsProgress = field.isTrue
      case (5, .varint): leaveOut(field.scalar)
      case (5, .bytes):
        var packed = unsafe ProtoNumbers(field.payload)
        while let filter = try packed.next() { leaveOut(filter) }
      case (6, .varint): wantsPrevious = field.isTrue
      case (7, .varint): watchID = field.signed
      case (8, .varint): allowsFragments = field.isTrue
      default: break
      }
    }
  }

  private mutating func leaveOut(_ filter: UInt64) {
    switch filter {
    case 0: leavesOutPuts = true
    case 1: leavesOutDeletes = true
    default: break
    }
  }
}

/// What a client asks on its watch stream.
enum WatchRequest: Equatable {
  case create(WatchCreateRequest)
  case cancel(watchID: Int64)
  case progress
  /// Nothing that is known: etcd ignores it.
  case unknown

  /// Of several members the last one counts.
  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    self = .unknown
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      guard field.wire == .bytes else { continue }
      switch field.number {
      case 1:
        var create = WatchCreateRequest()
        if case .create(let begun) = self { create = begun }
        unsafe try create.merge(field.payload)
        self = .create(create)
      case 2:
        var watchID: Int64 = 0
        if case .cancel(let begun) = self { watchID = begun }
        var inner = unsafe ProtoReader(field.payload)
        while let field = try inner.next() {
          if field.number == 1, field.wire == .varint { watchID = field.signed }
        }
        self = .cancel(watchID: watchID)
      case 3: self = .progress
      default: break
      }
    }
  }

  /// Appends a request to end a watch.
  static func encodeCancel(watchID: Int64, into output: inout ByteBuffer) {
    let mark = output.openMessage(2)
    output.appendField(1, watchID)
    output.closeMessage(mark)
  }

  /// Appends a request for progress.
  static func encodeProgress(into output: inout ByteBuffer) { output.closeMessage(output.openMessage(3)) }
}

/// One message of a watch stream from etcd. Points into the message; nothing is copied.
@safe struct WatchResponse {
  private(set) var header = ResponseHeader()
  private(set) var watchID: Int64 = 0
  private(set) var isCreated = false
  private(set) var isCanceled = false
  private(set) var compactRevision: Int64 = 0
  private(set) var cancelReason = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  /// More parts of the same revision follow.
  private(set) var isFragment = false
  private(set) var eventCount = 0
  private let message: UnsafeRawBufferPointer

  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    unsafe self.message = message
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .bytes): unsafe try header.merge(field.payload)
      case (2, .varint): watchID = field.signed
      case (3, .varint): isCreated = field.isTrue
      case (4, .varint): isCanceled = field.isTrue
      case (5, .varint): compactRevision = field.signed
      case (6, .bytes): unsafe cancelReason = field.payload
      case (7, .varint): isFragment = field.isTrue
      case (11, .bytes): eventCount += 1
      default: break
      }
    }
  }

  /// Appends the fields of the events as they stand in the message.
  func copyEvents(into output: inout ByteBuffer) {
    var reader = unsafe ProtoReader(message)
    while let field = try? reader.next() {
      if field.number == 11, field.wire == .bytes {
        unsafe output.append(UnsafeRawBufferPointer(rebasing: message[field.range]))
      }
    }
  }

  /// The encoded events, each for a `WatchEvent`.
  var events: ProtoSequence { unsafe ProtoSequence(of: 11, in: message) }

  /// Nothing but a revision up to which everything has been sent.
  var isProgress: Bool {
    eventCount == 0 && !isCreated && !isCanceled && compactRevision == 0 && header.revision > 0
  }
}

/// A change of a key. Points into the message.
@safe struct WatchEvent {
  private(set) var isDelete = false
  /// The encoded `KeyValue`; empty if etcd sent none.
  private(set) var keyValue = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  /// The encoded `KeyValue` before the change; `nil` without.
  private(set) var previous: UnsafeRawBufferPointer?
  private let message: UnsafeRawBufferPointer

  /// etcd writes each of the two once; of several the last counts.
  init(_ message: UnsafeRawBufferPointer) throws(ProtoMalformed) {
    var reader = unsafe ProtoReader(message)
    while let field = try reader.next() {
      switch (field.number, field.wire) {
      case (1, .varint): isDelete = field.scalar == 1
      case (2, .bytes): unsafe keyValue = field.payload
      case (3, .bytes): unsafe previous = field.payload
      default: break
      }
    }
    unsafe self.message = message
  }

  /// The encoded event as it is but for what was there before.
  var withoutPrevious: [UInt8] {
    var bytes: [UInt8] = []
    var reader = unsafe ProtoReader(message)
    while let field = try? reader.next() {
      if field.number != 3 || field.wire != .bytes { unsafe bytes += message[field.range] }
    }
    return bytes
  }
}
