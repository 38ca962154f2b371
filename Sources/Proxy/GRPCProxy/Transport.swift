internal import Glibc
internal import Reactor

/// A socket that speaks HTTP/2, with TLS between the two if asked for: what the connections of both sides have in common.
///
/// Bytes come in through `take`, events are pulled from `http2`, and whatever that wrote leaves in one send with `flush`.
/// At most one send is under way. It begins at the end of a turn, when nobody writes any more, and its end is
/// reported before anything else of the next turn, so that the output never changes under the kernel's hands.
struct Transport: ~Copyable {
  let descriptor: Int32
  var tls: TLSSession?
  /// The machine. A client that turns out to speak HTTP/1.1 gets its answer through the machine's output as well.
  var http2: HTTP2Session
  /// TLS records to be sent.
  var cipher: ByteBuffer
  /// Multishot receive is armed.
  var isReceiving = false
  private(set) var isSending = false
  private var asked = 0
  /// The socket was full; a poll waits for room.
  private(set) var awaitsRoom = false
  /// The socket takes nothing any more.
  private(set) var isBroken = false
  private var hasTakenLeave = false
  /// Bytes both ways, for the metrics.
  private(set) var received: UInt64 = 0
  private(set) var sent: UInt64 = 0

  /// Ciphertext is made ahead of the socket up to here; more would only move the waiting from one place to another.
  private static let cipherAhead = 64 << 10
  /// With this much waiting somebody may wait for room in turn: the send's end has to be known at once.
  private static let promptBytes = 64 << 10

  init(_ descriptor: Int32, _ http2: consuming HTTP2Session, tls: TLSSession?, _ pool: BlockPool) {
    self.descriptor = descriptor
    self.http2 = http2
    self.tls = tls
    cipher = ByteBuffer(pool)
  }

  /// Operations that the kernel has not ended.
  var isInFlight: Bool { isReceiving || isSending || awaitsRoom }

  /// All that waits to be sent is acknowledgements of pings.
  var owesLittle: Bool { cipher.isEmpty && http2.isPatient && !http2.output.isEmpty }

  /// Something waits to be sent.
  var owesOutput: Bool { !cipher.isEmpty || !hasTakenLeave && !http2.output.isEmpty }

  // MARK: In

  /// What came from the socket, decrypted if need be: a view that is good until `scratch` or the receive buffer changes.
  mutating func take(
    _ bytes: UnsafeRawBufferPointer, scratch: inout ByteBuffer
  ) -> (plain: UnsafeRawBufferPointer, tls: TLSSession.State?) {
    received &+= UInt64(bytes.count)
    guard let tls else { return unsafe (bytes, nil) }
    scratch.removeAll()
    let state = unsafe tls.receive(bytes, plain: &scratch, out: &cipher)
    return unsafe (scratch.bytes, state)
  }

  // MARK: Out

  /// Sends what waits, unless a send is under way, the socket is full, or it can wait for company.
  ///
  /// - Parameter isPrompt: the end of the send must be known at once, for it is what the owner waits for.
  mutating func flush(_ kernel: Kernel, _ token: Token, isPatient: Bool = false, isPrompt: Bool = false) {
    precondition(!isSending, "two sends in one turn: the first one's bytes must stay where they are")
    guard !awaitsRoom, !isBroken, !isPatient || !owesLittle else { return }
    if tls != nil { encrypt() }
    let bytes = unsafe tls == nil ? http2.output.bytes : cipher.bytes
    guard bytes.count > 0 else { return }
    isSending = true
    asked = bytes.count
    let isMore = tls != nil && !http2.output.isEmpty
    let isPrompt = isPrompt || asked >= Self.promptBytes || isMore || http2.hasWaitingStreams
    unsafe kernel.send(descriptor, bytes, prompt: isPrompt, token)
  }

  private mutating func encrypt() {
    guard let tls, !hasTakenLeave else { return }
    while !http2.output.isEmpty, cipher.count < Self.cipherAhead {
      let waiting = unsafe http2.output.bytes
      let piece = unsafe UnsafeRawBufferPointer(rebasing: waiting[..<min(waiting.count, Self.cipherAhead)])
      switch unsafe tls.send(piece, out: &cipher) {
      case .open, .closedByPeer: http2.output.consume(piece.count)
      case .handshaking: return
      case .failed:
        // Nothing can be said any more but the alert, if there is one.
        http2.output.removeAll()
        isBroken = isBroken || cipher.isEmpty
      }
    }
    http2.outputDrained()
  }

  /// Behind the last byte: tells the peer over TLS that no more will come (close_notify), once. Without that, a reader
  /// has to take the end for a cut.
  mutating func takeLeave() {
    guard let tls, !hasTakenLeave, http2.output.isEmpty else { return }
    hasTakenLeave = true
    tls.close(out: &cipher)
  }

  /// The send has ended: bytes that went out, or a negative errno. What waits is sent by the next `flush`; a full socket
  /// is polled with `poll`, unless the connection is over and nobody cares.
  mutating func sendEnded(_ result: Int32, _ kernel: Kernel, poll: Token?) {
    isSending = false
    if result < 0, result != -EAGAIN, result != -EINTR, result != -ENOBUFS, result != -ENOMEM {
      isBroken = true
      return
    }
    let count = min(Int(max(0, result)), asked)
    sent &+= UInt64(count)
    if tls == nil { http2.output.consume(count) } else { cipher.consume(count) }
    http2.outputDrained()
    if count < asked, let poll {
      awaitsRoom = true
      kernel.poll(descriptor, for: .writable, poll)
    }
  }

  /// The socket has room again, or the poll was called back.
  mutating func roomCame() { awaitsRoom = false }

  /// Asks for what the peer sends, until it ends.
  mutating func receive(_ kernel: Kernel, _ token: Token) {
    guard !isReceiving else { return }
    isReceiving = true
    kernel.receive(descriptor, token)
  }

  /// Calls back what the kernel still has.
  mutating func cancel(_ kernel: Kernel, receive: Token, poll: Token) {
    if isReceiving { kernel.cancel(receive, on: descriptor) }
    if awaitsRoom { kernel.cancel(poll, on: descriptor) }
  }
}
