internal import Glibc

/// The header fields that the proxy knows by name, found once when a field is decoded or added.
enum HeaderKind: UInt8 {
  case other = 0
  // Pseudo header fields; `otherPseudo` is one that RFC 9113 does not name.
  case method, scheme, authority, path, status, otherPseudo
  // gRPC and etcd.
  case contentType, te, userAgent
  case grpcTimeout, grpcStatus, grpcMessage, grpcEncoding, grpcAcceptEncoding, grpcStatusDetails
  case token, authorization, hasleader, clientAPIVersion
  // Our own.
  case bypass
  // HTTP.
  case contentLength, host
  /// What RFC 9113 section 8.2.2 forbids: `connection` and its company.
  case connectionSpecific

  var isPseudo: Bool { rawValue >= HeaderKind.method.rawValue && rawValue <= HeaderKind.otherPseudo.rawValue }

  /// The kind of the field with this name, in lower case.
  init(name: UnsafeRawBufferPointer) {
    self = .other
    guard let first = unsafe name.first else { return }
    if first == UInt8(ascii: ":") {
      self = .otherPseudo
      unsafe findPseudo(name)
    } else {
      unsafe findRegular(name, first)
    }
  }

  private mutating func findPseudo(_ name: UnsafeRawBufferPointer) {
    switch name.count {
    case 5: unsafe match(name, ":path", .path)
    case 7:
      unsafe match(name, ":method", .method)
      unsafe match(name, ":scheme", .scheme)
      unsafe match(name, ":status", .status)
    case 10: unsafe match(name, ":authority", .authority)
    default: break
    }
  }

  private mutating func findRegular(_ name: UnsafeRawBufferPointer, _ first: UInt8) {
    switch (name.count, first) {
    case (2, UInt8(ascii: "t")): unsafe match(name, "te", .te)
    case (4, UInt8(ascii: "h")): unsafe match(name, "host", .host)
    case (5, UInt8(ascii: "t")): unsafe match(name, "token", .token)
    case (7, UInt8(ascii: "u")): unsafe match(name, "upgrade", .connectionSpecific)
    case (9, UInt8(ascii: "h")): unsafe match(name, "hasleader", .hasleader)
    case (10, UInt8(ascii: "u")): unsafe match(name, "user-agent", .userAgent)
    case (10, UInt8(ascii: "c")): unsafe match(name, "connection", .connectionSpecific)
    case (10, UInt8(ascii: "k")): unsafe match(name, "keep-alive", .connectionSpecific)
    case (11, UInt8(ascii: "g")): unsafe match(name, "grpc-status", .grpcStatus)
    case (12, UInt8(ascii: "g")):
      unsafe match(name, "grpc-timeout", .grpcTimeout)
      unsafe match(name, "grpc-message", .grpcMessage)
    case (12, UInt8(ascii: "c")): unsafe match(name, "content-type", .contentType)
    case (13, UInt8(ascii: "g")): unsafe match(name, "grpc-encoding", .grpcEncoding)
    case (13, UInt8(ascii: "a")): unsafe match(name, "authorization", .authorization)
    case (14, UInt8(ascii: "c")): unsafe match(name, "content-length", .contentLength)
    case (14, UInt8(ascii: "r")): unsafe match(name, "ringway-bypass", .bypass)
    case (16, UInt8(ascii: "p")): unsafe match(name, "proxy-connection", .connectionSpecific)
    case (17, UInt8(ascii: "t")): unsafe match(name, "transfer-encoding", .connectionSpecific)
    case (18, UInt8(ascii: "c")): unsafe match(name, "client-api-version", .clientAPIVersion)
    case (20, UInt8(ascii: "g")): unsafe match(name, "grpc-accept-encoding", .grpcAcceptEncoding)
    case (23, UInt8(ascii: "g")): unsafe match(name, "grpc-status-details-bin", .grpcStatusDetails)
    default: break
    }
  }

  private mutating func match(_ name: UnsafeRawBufferPointer, _ text: StaticString, _ kind: HeaderKind) {
    if unsafe name.isEqual(to: text) { self = kind }
  }
}

extension UnsafeRawBufferPointer {
  /// The bytes of a constant.
  init(_ text: StaticString) {
    unsafe self.init(start: text.utf8Start, count: text.utf8CodeUnitCount)
  }

  /// Whether `text` stands at the beginning.
  func begins(with text: StaticString) -> Bool {
    guard count >= text.utf8CodeUnitCount else { return false }
    return unsafe UnsafeRawBufferPointer(rebasing: self[..<text.utf8CodeUnitCount]).isEqual(to: text)
  }

  /// Whether the bytes are those of `text`.
  func isEqual(to text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    guard let start = baseAddress else { return true }
    return unsafe memcmp(start, text.utf8Start, count) == 0
  }
}
