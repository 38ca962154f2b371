internal import CTLS

/// The client's side of one TLS handshake, as a machine without input and output: bytes go in and come out.
///
/// It tells whether an endpoint speaks TLS and whether its certificate is good; nothing is sent through the
/// connection afterwards. Belongs to the thread of its context.
@safe public struct TLSHandshake: ~Copyable {
  /// How far the handshake is.
  public enum State: Hashable, Sendable {
    /// The other end has to send more.
    case going
    /// Both ends agree on keys. With TLS 1.3 a server may still refuse for want of a client certificate.
    case done
    /// Why there will be no connection, in OpenSSL's words. What is left to send is an alert.
    case failed(String)
  }

  /// Bytes of the server that are taken in at most: its largest certificate list (100 KiB in OpenSSL) with
  /// room.
  public static let mostReceived = 256 << 10

  private let session: OpaquePointer
  private let input: OpaquePointer
  private let output: OpaquePointer
  private let verifies: Bool
  private var received = 0
  private var header = RecordHeader()
  private var state = State.going

  /// True once the other end has sent the header of a TLS record (RFC 8446 section 5.1), be it an alert.
  public private(set) var sawPeer = false

  /// Whether the server's certificate leads to a trusted authority and is for the server name; nil before it
  /// was seen, and always if the context trusts everybody. Known even if the server demands a certificate of
  /// ours and hangs up. That the server has the certificate's key is only sure in `State.done`.
  public private(set) var certificateVerified: Bool?

  /// - Parameter serverName: host name or IP address that the certificate must be for; a name is also sent to
  ///   the server (RFC 6066 section 3). Nil accepts a certificate for anybody.
  /// - Throws: the name is none, or memory is short.
  public init(context: borrowing TLSContext, serverName: String?) throws(TLSFailure) {
    ERR_clear_error()
    guard let session = unsafe SSL_new(context.context) else { throw .last }
    let (input, output) = unsafe (rw_tls_memory(), rw_tls_memory())
    guard let input = unsafe input, let output = unsafe output else {
      unsafe BIO_free(input)
      unsafe BIO_free(output)
      unsafe SSL_free(session)
      throw .last
    }
    unsafe SSL_set_bio(session, input, output)
    unsafe SSL_set_connect_state(session)
    do throws(TLSFailure) {
      if let serverName { try unsafe TLSServerName.expect(serverName, session) }
    } catch {
      unsafe SSL_free(session)
      throw error
    }
    unsafe self.session = session
    unsafe self.input = input
    unsafe self.output = output
    verifies = context.verifies
  }

  /// The memory BIOs belong to the session.
  deinit { unsafe SSL_free(session) }

  /// The first bytes to send.
  public mutating func start() -> [UInt8] {
    guard received == 0, state == .going else { return [] }
    step()
    return unsent()
  }

  /// Takes in what the server sent, in pieces of any size.
  ///
  /// - Returns: what to send now, an alert included, and how things stand. Once it is not `going` any more
  ///   the state stays, and bytes are ignored.
  public mutating func receive(_ bytes: UnsafeRawBufferPointer) -> (send: [UInt8], state: State) {
    guard state == .going, bytes.count > 0 else { return ([], state) }
    if unsafe header.completes(with: bytes) { sawPeer = true }
    guard bytes.count <= Self.mostReceived - received else {
      state = .failed("more than \(Self.mostReceived) bytes and no end of the handshake")
      return ([], state)
    }
    received += bytes.count
    guard unsafe BIO_write(input, bytes.baseAddress, Int32(bytes.count)) == Int32(bytes.count) else {
      state = .failed(TLSFailure.last.description)
      return ([], state)
    }
    step()
    return (unsent(), state)
  }

  // MARK: Parts

  private mutating func step() {
    ERR_clear_error()
    let result = unsafe SSL_do_handshake(session)
    let cause = unsafe SSL_get_error(session, result)
    lookAtCertificate()
    if result == 1 {
      state = .done
    } else if cause != SSL_ERROR_WANT_READ {
      state = .failed(words)
    }
    ERR_clear_error()
  }

  private mutating func lookAtCertificate() {
    guard verifies, certificateVerified == nil else { return }
    if unsafe SSL_get_verify_result(session) != Int(X509_V_OK) {
      certificateVerified = false
    } else if unsafe SSL_get0_peer_certificate(session) != nil {
      certificateVerified = true
    }
  }

  private var words: String {
    let words = TLSFailure.last.description
    guard certificateVerified == false else { return words }
    let verdict = unsafe SSL_get_verify_result(session)
    guard let text = unsafe X509_verify_cert_error_string(verdict) else { return words }
    return "\(words): \(unsafe String(cString: text))"
  }

  /// Takes out what OpenSSL wants to send; a few KiB at most, since there is no more to a client's handshake.
  private func unsent() -> [UInt8] {
    let count = unsafe rw_tls_pending(output)
    guard count > 0 else { return [] }
    return unsafe [UInt8](unsafeUninitializedCapacity: count) { room, filled in
      filled = max(0, Int(unsafe BIO_read(output, room.baseAddress, Int32(clamping: count))))
    }
  }
}

/// Collects the five bytes that every TLS record begins with.
private struct RecordHeader {
  private static let size = 5
  private static let longestRecord = (16 << 10) + 256 + 1792  // RFC 5246 section 6.2.3, for TLS 1.2

  private var bytes: [UInt8] = []

  /// Takes in bytes of the stream's beginning. True if they complete the header of a record.
  mutating func completes(with more: UnsafeRawBufferPointer) -> Bool {
    guard bytes.count < Self.size else { return false }
    unsafe bytes += more.prefix(Self.size - bytes.count)
    guard bytes.count == Self.size else { return false }
    let length = Int(bytes[3]) << 8 | Int(bytes[4])
    return (20...23).contains(bytes[0]) && bytes[1] == 3 && bytes[2] <= 4
      && (1...Self.longestRecord).contains(length)
  }
}
