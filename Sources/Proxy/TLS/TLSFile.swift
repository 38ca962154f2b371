internal import CTLS
internal import Glibc
internal import Reactor

/// The bytes of a file with certificates, a key or revocation lists, and OpenSSL's place in them. Errors name
/// the file, in Go's words where etcd has them.
@safe struct TLSFile: ~Copyable {
  let path: String
  private let bytes: UnsafeMutableRawBufferPointer
  private let reader: OpaquePointer

  /// Reads the file.
  init(_ path: String) throws(TLSFailure) {
    let content = try Self.content(path)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: content.count, alignment: 1)
    unsafe bytes.copyBytes(from: content)
    ERR_clear_error()
    guard let reader = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else {
      unsafe bytes.deallocate()
      throw TLSFailure.last
    }
    self.path = path
    unsafe self.bytes = bytes
    unsafe self.reader = reader
  }

  deinit {
    unsafe BIO_free(reader)
    // Keys have no business in memory that somebody else gets next.
    unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
    unsafe bytes.deallocate()
  }

  private static func content(_ path: String) throws(TLSFailure) -> [UInt8] {
    guard !path.isEmpty, !path.utf8.contains(0) else {
      throw TLSFailure("open \(path): no such file or directory")
    }
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TLSFailure("open \(path): \(SystemError.last)") }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = unsafe room.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw TLSFailure("read \(path): \(SystemError.last)") }
      if count == 0 { return content }
      content += room[..<count]
      guard content.count <= Limits.tlsFileBytes else {
        throw TLSFailure("\(path): larger than \(Limits.tlsFileBytes) bytes")
      }
    }
  }

  /// Hands every certificate of a PEM file to `use`, which does not own it; there is at least one.
  func certificates(_ use: (OpaquePointer) throws(TLSFailure) -> Void) throws(TLSFailure) {
    var count = 0
    while let certificate = unsafe rw_tls_pem_certificate(reader) {
      defer { unsafe X509_free(certificate) }
      try unsafe use(certificate)
      count += 1
    }
    guard rw_tls_pem_ended() else { throw TLSFailure("\(path): \(TLSFailure.last)") }
    if count == 0 { throw TLSFailure("\(path): tls: failed to find any PEM data in certificate input") }
  }

  /// Hands the private key of a PEM file to `use`, which does not own it.
  func key(_ use: (OpaquePointer) throws(TLSFailure) -> Void) throws(TLSFailure) {
    guard let key = unsafe rw_tls_pem_key(reader) else {
      ERR_clear_error()
      throw TLSFailure("\(path): tls: failed to find a PEM private key without password in key input")
    }
    defer { unsafe EVP_PKEY_free(key) }
    try unsafe use(key)
  }

  /// Hands every revocation list, PEM or DER, to `use`, which owns it; there is at least one.
  func revocationLists(_ use: (OpaquePointer) throws(TLSFailure) -> Void) throws(TLSFailure) {
    var count = 0
    while let list = unsafe rw_tls_pem_crl(reader) {
      try unsafe use(list)
      count += 1
    }
    guard rw_tls_pem_ended() else { throw TLSFailure("\(path): \(TLSFailure.last)") }
    guard count == 0 else { return }
    var start = unsafe UnsafePointer<UInt8>(bytes.assumingMemoryBound(to: UInt8.self).baseAddress)
    guard let list = unsafe d2i_X509_CRL(nil, &start, bytes.count) else {
      ERR_clear_error()
      throw TLSFailure("\(path): neither PEM nor DER of a certificate revocation list")
    }
    try unsafe use(list)
  }
}

/// Seconds since 1970 of a time in a certificate; nil if it cannot be read.
func tlsSeconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
  var seconds: Int64 = 0
  return unsafe rw_tls_seconds(time, &seconds) ? seconds : nil
}
