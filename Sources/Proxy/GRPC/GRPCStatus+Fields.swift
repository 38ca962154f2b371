internal import Reactor

/// A call's status as header fields.
extension GRPCStatus {
  /// From trailers. Without `grpc-status` they come from something that does not speak gRPC.
  init(_ fields: HeaderList) {
    self.init(
      code: Code(fields),
      message: unsafe fields.value(of: .grpcMessage).map { unsafe PercentCoding.decode($0) } ?? [])
  }

  /// Fills `list` with the trailers of a call, or with its only header block.
  static func write(_ code: Code, _ text: String, to list: HeaderList, isHead: Bool, _ pool: BlockPool) {
    list.removeAll()
    if isHead {
      list.append(":status", "200")
      list.append("content-type", "application/grpc")
    }
    unsafe "\(code.rawValue)".withUTF8Bytes { unsafe list.append("grpc-status", $0) }
    GRPCStatus(code: code, message: Array(text.utf8)).appendMessage(to: list, pool)
  }

  /// Adds `grpc-message`.
  func appendMessage(to list: HeaderList, _ pool: BlockPool) {
    var coded = ByteBuffer(pool)
    unsafe message.withUnsafeBytes { unsafe PercentCoding.encode($0, into: &coded) }
    unsafe list.append("grpc-message", coded.bytes)
  }
}

extension GRPCStatus.Code {
  /// From trailers.
  init(_ fields: HeaderList) {
    if let text = unsafe fields.value(of: .grpcStatus) {
      unsafe self.init(header: text)
    } else if let text = unsafe fields.value(of: .status),
      let status = unsafe Int(String(decoding: text, as: UTF8.self))
    {
      self.init(httpStatus: status)
    } else {
      self = .unknown
    }
  }

  /// The name in Go's library, for metrics.
  var name: String {
    switch self {
    case .ok: "OK"
    case .canceled: "Canceled"
    case .unknown: "Unknown"
    case .invalidArgument: "InvalidArgument"
    case .deadlineExceeded: "DeadlineExceeded"
    case .notFound: "NotFound"
    case .alreadyExists: "AlreadyExists"
    case .permissionDenied: "PermissionDenied"
    case .resourceExhausted: "ResourceExhausted"
    case .failedPrecondition: "FailedPrecondition"
    case .aborted: "Aborted"
    case .outOfRange: "OutOfRange"
    case .unimplemented: "Unimplemented"
    case .internal: "Internal"
    case .unavailable: "Unavailable"
    case .dataLoss: "DataLoss"
    case .unauthenticated: "Unauthenticated"
    }
  }
}
