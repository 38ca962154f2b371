internal import Reactor

/// A client's stream of heartbeats, which the batcher answers.
final class HeartbeatStream: ClientSession {
  private let desk: HeartbeatDesk
  /// The stream's name at its desk.
  var name = Handle.none
  /// What the client has sent and could not be read yet; its credit waits.
  private var inbox: ByteBuffer
  private var order = HeartbeatOrder()
  /// Answers that have not left.
  private var outbox: ByteBuffer
  private var isHalfClosed = false
  /// How it ends, once what was asked before has been answered and has left.
  private var ending: HeartbeatMail.End?
  /// It is to be flushed before the turn ends.
  var isDue = false

  init(_ desk: HeartbeatDesk, client: Handle, stream: UInt32) {
    self.desk = desk
    inbox = ByteBuffer(desk.core.pool)
    outbox = ByteBuffer(desk.core.pool)
    super.init(desk.core, client: client, stream: stream)
  }

  override var heldBytes: Int { inbox.count + outbox.count }

  // MARK: From the client

  override func received(_ bytes: UnsafeRawBufferPointer, on connection: inout ClientConnection) -> Int {
    guard inbox.isEmpty else {
      unsafe inbox.append(bytes)
      return readInbox(on: &connection)
    }
    let used = unsafe read(bytes, on: &connection)
    if used < bytes.count { unsafe inbox.append(UnsafeRawBufferPointer(rebasing: bytes[used...])) }
    return used
  }

  override func halfClosed(on connection: inout ClientConnection) {
    isHalfClosed = true
    finishIfDone(on: &connection)
  }

  override func closed() { desk.left(self) }

  private func readInbox(on connection: inout ClientConnection) -> Int {
    let used = unsafe read(inbox.bytes, on: &connection)
    inbox.consume(used)
    return used
  }

  /// Reads requests while their answers have room.
  ///
  /// - Returns: how many bytes they were.
  private func read(_ bytes: UnsafeRawBufferPointer, on connection: inout ClientConnection) -> Int {
    var offset = 0
    while isOpen, ending == nil, order.count < Limits.heartbeatsAStream,
      outbox.count < Limits.heartbeatAnswerBytes
    {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset...])
      guard rest.count >= GRPCMessage.prefix else { break }
      if let refusal = unsafe refusal(of: rest) {
        refuse(refusal, on: &connection)
        return bytes.count
      }
      guard let length = unsafe GRPCMessage.complete(rest) else { break }
      let message = unsafe UnsafeRawBufferPointer(rebasing: rest[GRPCMessage.prefix..<length])
      guard let request = unsafe try? LeaseRequest(message) else {
        refuse(
          .init(
            code: .internal, words: "grpc: failed to unmarshal the received message unexpected EOF"),
          on: &connection)
        return bytes.count
      }
      desk.beat(self, request.id, order.ask())
      offset += length
    }
    return offset
  }

  /// What a message's prefix alone can be refused for, in the words of etcd's gRPC library.
  private func refusal(of bytes: UnsafeRawBufferPointer) -> HeartbeatMail.End? {
    let flag = unsafe bytes[0]
    if flag == 1 {
      return .init(
        code: .internal, words: "grpc: compressed flag set with identity or empty encoding")
    }
    if flag > 1 { return .init(code: .internal, words: "grpc: received unexpected payload format \(flag)") }
    let length = unsafe UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
    guard length > Limits.heartbeatRequestBytes else { return nil }
    return .init(
      code: .resourceExhausted,
      words: "grpc: received message larger than max (\(length) vs. \(Limits.heartbeatRequestBytes))")
  }

  /// etcd reads one request after the other, so the answers to those before come first.
  private func refuse(_ refusal: HeartbeatMail.End, on connection: inout ClientConnection) {
    ending = refusal
    finishIfDone(on: &connection)
  }

  // MARK: To the client

  /// The answer to one of its requests.
  ///
  /// - Returns: how many answers the client gets by it.
  func answered(_ sequence: UInt32, _ answer: HeartbeatAnswer) -> Int {
    order.answer(sequence, answer, to: &outbox)
  }

  /// etcd has ended what the stream's requests went through.
  func ended(_ end: HeartbeatMail.End) {
    order = HeartbeatOrder()
    ending = end
  }

  override func writable(on connection: inout ClientConnection) { flush(on: &connection) }

  /// Sends what the client takes, and reads on when that has made room.
  func flush(on connection: inout ClientConnection) {
    guard isOpen else { return }
    if !outbox.isEmpty {
      sendHead(on: &connection)
      let taken = unsafe connection.transport.http2.send(stream, outbox.bytes, endStream: false)
      outbox.consume(taken)
    }
    if !inbox.isEmpty {
      let used = readInbox(on: &connection)
      connection.transport.http2.credit(stream, used)
    }
    finishIfDone(on: &connection)
  }

  private func finishIfDone(on connection: inout ClientConnection) {
    guard isOpen, order.count == 0, outbox.isEmpty else { return }
    if let ending { return end(ending.code, ending.words, on: &connection) }
    guard isHalfClosed else { return }
    if inbox.isEmpty {
      finish(on: &connection)
    } else {
      end(.internal, "unexpected EOF", on: &connection)
    }
  }
}
