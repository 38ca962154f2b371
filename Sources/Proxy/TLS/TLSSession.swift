internal import CTLS
internal import Reactor

/// One TLS connection as a machine without input and output: bytes go in and come out, on either side.
///
/// OpenSSL reads from and writes to the memory of the running call, so that an idle session holds no buffer.
/// Belongs to one thread; its context may serve several.
@safe final class TLSSession {
  /// How things stand.
  enum State: Hashable, Sendable {
    /// The ends do not agree on keys yet.
    case handshaking
    /// Bytes go both ways.
    case open
    /// The other end will send no more (close_notify). It may still read.
    case closedByPeer
    /// Broken for good, and why, for the operator. An alert may be among what is to be sent.
    case failed(String)
  }

  /// The protocol that both ends agreed on (RFC 7301).
  enum ApplicationProtocol: String, Hashable, Sendable {
    case http2 = "h2"
    case http11 = "http/1.1"
  }

  private(set) var state = State.handshaking
  private let session: OpaquePointer
  private let side: Side
  /// Bytes taken in while handshaking.
  private var handshakeBytes = 0

  /// Keeps what the session looks into alive.
  private enum Side {
    case server(TLSServerContext)
    case client(TLSClientContext, name: String?)
  }

  // MARK: Making one

  /// The server's side. Nothing is sent before the client has.
  init(server context: TLSServerContext) throws(TLSFailure) {
    unsafe session = try Self.make(context.library)
    side = .server(context)
    unsafe SSL_set_accept_state(session)
  }

  /// The client's side.
  ///
  /// - Parameter serverName: host name or IP address that the certificate must be for; nil accepts one for
  ///   anybody.
  init(client context: TLSClientContext, serverName: String?) throws(TLSFailure) {
    unsafe session = try Self.make(context.library)
    side = .client(context, name: serverName)
    unsafe SSL_set_connect_state(session)
    if let serverName { try unsafe TLSServerName.expect(serverName, session) }
  }

  deinit { unsafe SSL_free(session) }

  private static func make(_ library: TLSLibraryContext) throws(TLSFailure) -> OpaquePointer {
    ERR_clear_error()
    guard let session = unsafe SSL_new(library.pointer) else { throw TLSFailure.last }
    guard unsafe rw_tls_attach(session) else {
      unsafe SSL_free(session)
      throw TLSFailure.last
    }
    return unsafe session
  }

  // MARK: Bytes

  /// Begins the handshake: the client's first message.
  func start(out: inout ByteBuffer) {
    guard state == .handshaking, case .client = side else { return }
    var io = unsafe rw_tls_io()
    unsafe handshake(&io, &out)
  }

  /// Takes in all of `cipher`. What it says is appended to `plain`; what must be sent for it (handshake,
  /// alerts, new keys) to `out`.
  func receive(
    _ cipher: UnsafeRawBufferPointer, plain: inout ByteBuffer, out: inout ByteBuffer
  ) -> State {
    guard cipher.count > 0 else { return state }
    var io = unsafe rw_tls_io()
    unsafe io.input = cipher.assumingMemoryBound(to: UInt8.self).baseAddress
    unsafe io.input_left = cipher.count
    if state == .handshaking {
      // Counted without this piece, which may hold more than the end of the handshake.
      guard handshakeBytes <= Limits.tlsHandshakeBytes else {
        state = .failed("more than \(Limits.tlsHandshakeBytes) bytes and no end of the handshake")
        return state
      }
      handshakeBytes &+= cipher.count
      unsafe handshake(&io, &out)
    }
    if state == .open { unsafe read(&io, cipher.count, &plain, &out) }
    return state
  }

  /// Encrypts all of `plain`, in records of 16 KiB. Before the session is open and after it has failed
  /// nothing is taken.
  func send(_ plain: UnsafeRawBufferPointer, out: inout ByteBuffer) -> State {
    guard state == .open || state == .closedByPeer else { return state }
    var io = unsafe rw_tls_io()
    var sent = 0
    while sent < plain.count {
      let size = min(plain.count &- sent, Limits.tlsRecordBytes)
      let piece = unsafe UnsafeRawBufferPointer(rebasing: plain[sent..<sent &+ size])
      var taken = 0
      let result = unsafe filling(&io, &out, room: size &+ Limits.tlsRecordOverhead) { io in
        unsafe rw_tls_write(session, &io, piece.baseAddress, piece.count, &taken)
      }
      guard result == RW_TLS_DONE else {
        state = .failed(failureWords())
        return state
      }
      sent &+= taken
    }
    return state
  }

  /// Says that no more will be sent (close_notify).
  func close(out: inout ByteBuffer) {
    guard state == .open || state == .closedByPeer else { return }
    var io = unsafe rw_tls_io()
    _ = unsafe filling(&io, &out, room: Limits.tlsRecordOverhead) { io in unsafe rw_tls_close(session, &io) }
    ERR_clear_error()
  }

  // MARK: Steps

  private func handshake(_ io: inout rw_tls_io, _ out: inout ByteBuffer) {
    let result = unsafe filling(&io, &out, room: Limits.tlsFlightBytes) { io in
      unsafe rw_tls_handshake(session, &io)
    }
    switch result {
    case RW_TLS_DONE: state = .open
    case RW_TLS_WANT_INPUT: break
    default: state = .failed(failureWords())
    }
  }

  private func read(
    _ io: inout rw_tls_io, _ count: Int, _ plain: inout ByteBuffer, _ out: inout ByteBuffer
  ) {
    // What comes out is hardly more than what went in; the rest of a record that lay here already is asked
    // for.
    var wanted = min(count, Limits.tlsRecordBytes)
    while unsafe io.input_left > 0 || SSL_has_pending(session) == 1 {
      let room = unsafe plain.reserve(max(wanted, 1))
      var got = 0
      let result = unsafe answering(&io, &out) { io in
        unsafe rw_tls_read(session, &io, room.baseAddress, room.count, &got)
      }
      plain.commit(got)
      switch result {
      case RW_TLS_DONE: wanted = Int(unsafe SSL_pending(session))
      case RW_TLS_WANT_INPUT: return
      case RW_TLS_CLOSED:
        state = .closedByPeer
        return
      default:
        state = .failed(failureWords())
        return
      }
    }
  }

  /// Makes a call whose output goes to `out` at once, again with more room as often as there was too little.
  private func filling(
    _ io: inout rw_tls_io, _ out: inout ByteBuffer, room: Int, _ call: (inout rw_tls_io) -> rw_tls_result
  ) -> rw_tls_result {
    while true {
      let memory = unsafe out.reserve(room)
      unsafe io.output = memory.assumingMemoryBound(to: UInt8.self).baseAddress
      unsafe io.output_room = memory.count
      unsafe io.output_used = 0
      let result = unsafe call(&io)
      unsafe out.commit(io.output_used)
      if result != RW_TLS_WANT_OUTPUT { return result }
    }
  }

  /// The same for calls that seldom have output: `out` is left alone unless there is some.
  private func answering(
    _ io: inout rw_tls_io, _ out: inout ByteBuffer, _ call: (inout rw_tls_io) -> rw_tls_result
  ) -> rw_tls_result {
    var spare = InlineArray<256, UInt8>(repeating: 0)
    var room = spare.mutableSpan
    return unsafe room.withUnsafeMutableBufferPointer { memory in
      while true {
        unsafe io.output = memory.baseAddress
        unsafe io.output_room = memory.count
        unsafe io.output_used = 0
        let result = unsafe call(&io)
        unsafe out.append(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(memory)[..<io.output_used]))
        if result != RW_TLS_WANT_OUTPUT { return result }
      }
    }
  }

  private func failureWords() -> String {
    switch side {
    case .server: unsafe TLSWords.server(session)
    case .client(_, let name): unsafe TLSWords.client(session, serverName: name)
    }
  }
}

// MARK: - What was agreed on

extension TLSSession {
  /// What ALPN chose; nil if the client offered nothing.
  var negotiatedProtocol: ApplicationProtocol? {
    var start: UnsafePointer<UInt8>?
    var length: UInt32 = 0
    unsafe SSL_get0_alpn_selected(session, &start, &length)
    switch unsafe (start, length) {
    case (_?, 2): return .http2
    case (_?, 8): return .http11
    default: return nil
    }
  }

  /// The common name in the other end's certificate, which has been verified unless the context does not ask
  /// for that.
  var peerCommonName: String? {
    guard let certificate = unsafe SSL_get0_peer_certificate(session) else { return nil }
    return unsafe tlsCommonName(certificate)
  }

  /// The version in use; nil before there is one.
  var version: TLSVersion? {
    guard state != .handshaking else { return nil }
    switch unsafe SSL_version(session) {
    case TLS1_2_VERSION: return .tls12
    case TLS1_3_VERSION: return .tls13
    default: return nil
    }
  }

  /// The cipher suite by its IANA name, which is also Go's; nil before there is one.
  var cipherSuite: String? {
    guard let suite = unsafe SSL_get_current_cipher(session),
      let name = unsafe SSL_CIPHER_standard_name(suite)
    else { return nil }
    return unsafe String(cString: name)
  }

  /// True if keys came from an earlier session's ticket, without a new look at certificates.
  var isResumed: Bool { unsafe SSL_session_reused(session) == 1 }
}
