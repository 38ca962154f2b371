internal import Reactor

/// A client's stream that the proxy itself answers, instead of passing it on: watches and heartbeats.
///
/// It is called with the client's connection under edit, so it may not edit another client's; what concerns others waits for
/// the end of the turn.
class ClientSession {
  unowned let core: ProxyCore
  /// The client's connection, and the stream on it.
  let client: Handle
  let stream: UInt32
  /// The call that stands for the stream; `none` once that is over.
  fileprivate(set) var id = Handle.none
  private var isHeadSent = false

  init(_ core: ProxyCore, client: Handle, stream: UInt32) {
    self.core = core
    self.client = client
    self.stream = stream
  }

  /// The stream goes on.
  var isOpen: Bool { id != .none }

  // MARK: For those who inherit

  /// Bytes kept for it that wait for one of the two sides.
  var heldBytes: Int { 0 }

  /// It may have nothing at etcd that ends when there is no leader.
  var needsGuard: Bool { true }

  /// Bytes that the client has sent.
  ///
  /// - Returns: how many are credited to the client at once; the rest the session credits later.
  func received(_ bytes: UnsafeRawBufferPointer, on connection: inout ClientConnection) -> Int { bytes.count }

  /// The client will say nothing more, but may still listen.
  func halfClosed(on connection: inout ClientConnection) {}

  /// The client's window or connection has room again.
  func writable(on connection: inout ClientConnection) {}

  /// The stream is over: by the client, its connection, the deadline, or `end`.
  func closed() {}

  // MARK: What can be done

  /// Sends the head of the answer, unless it has been sent: it goes before the first message.
  func sendHead(on connection: inout ClientConnection) {
    guard !isHeadSent else { return }
    isHeadSent = true
    _ = core.calls.edit(id) { $0.headSent = true }
    connection.transport.http2.sendResponseHead(stream)
  }

  /// Ends the stream with a status, the client's connection being under edit.
  func end(_ code: GRPCStatus.Code, _ words: String, on connection: inout ClientConnection) {
    guard isOpen else { return }
    core.failCall(id, &connection, client, code, words)
  }

  /// Ends the stream with a status, no client's connection being under edit.
  func end(_ code: GRPCStatus.Code, _ words: String) {
    guard isOpen else { return }
    core.failAlone(id, code, words)
  }

  /// Ends the stream well, behind all that was sent.
  func finish(on connection: inout ClientConnection) {
    guard isOpen else { return }
    sendHead(on: &connection)
    connection.transport.http2.sendTrailersOK(stream)
    core.finished(id, &connection, client)
  }

  // MARK: The core's side

  fileprivate func begin(_ id: Handle) { self.id = id }

  fileprivate func close() {
    guard isOpen else { return }
    id = .none
    closed()
  }
}

/// How sessions hang on calls.
extension ProxyCore {
  /// Gives the call a session, if its method has one, its client wants it and it can be had.
  func openSession(_ call: inout Call, _ id: Handle, _ fields: HeaderList) -> Bool {
    guard let session = makeSession(call, fields) else { return false }
    call.session = session
    session.begin(id)
    if unsafe fields.value(of: .hasleader) != nil { leaders.add(session, credentials(fields)) }
    return true
  }

  /// Compressed messages nobody can share: they are passed on.
  private func makeSession(_ call: borrowing Call, _ fields: HeaderList) -> ClientSession? {
    let bypass = Bypass(fields)
    guard bypass != .all, !fields.isCompressed else { return nil }
    return switch call.method {
    case .watch:
      WatchStream(
        watch, client: call.client, stream: call.stream, credentials(fields), isAlone: bypass == .watch)
    case .leaseKeepAlive: makeHeartbeatStream(call, fields)
    default: nil
    }
  }

  /// Bytes of a client's stream that has a session.
  func sessionReceived(
    _ session: ClientSession, _ connection: inout ClientConnection, _ handle: Handle,
    _ bytes: UnsafeRawBufferPointer, endStream: Bool
  ) {
    let credit = bytes.count > 0 ? unsafe session.received(bytes, on: &connection) : 0
    if credit > 0 { connection.transport.http2.credit(session.stream, credit) }
    if endStream, session.isOpen { session.halfClosed(on: &connection) }
    touch(&connection, handle)
  }

  /// The call is over.
  func closeSession(_ call: borrowing Call) { call.session?.close() }

  /// A session has ended its stream well.
  fileprivate func finished(_ id: Handle, _ connection: inout ClientConnection, _ handle: Handle) {
    _ = calls.edit(id) { call in
      if !call.clientEnded { connection.transport.http2.reset(call.stream, .noError) }
      count(call, .ok)
    }
    touch(&connection, handle)
    forget(id, &connection)
  }
}

extension HeaderList {
  fileprivate var isCompressed: Bool {
    guard let encoding = unsafe value(of: .grpcEncoding) else { return false }
    return unsafe !encoding.isEqual(to: "identity")
  }
}
