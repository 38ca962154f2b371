internal import Reactor

/// How a call ended: a code for programs, a message for people (etcd's clients go by the message as well).
struct GRPCStatus: Hashable, Sendable {
  let code: Code
  /// UTF-8 by convention; whatever arrived is kept byte for byte.
  let message: [UInt8]

  static let ok = GRPCStatus(code: .ok, message: [])

  init(code: Code, message: [UInt8]) {
    self.code = code
    self.message = message
  }

  init(_ code: Code, _ text: StaticString) {
    self.code = code
    message = unsafe Array(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// The codes of gRPC with their numbers.
  enum Code: UInt8, CaseIterable, Sendable {
    case ok = 0
    case canceled = 1
    case unknown = 2
    case invalidArgument = 3
    case deadlineExceeded = 4
    case notFound = 5
    case alreadyExists = 6
    case permissionDenied = 7
    case resourceExhausted = 8
    case failedPrecondition = 9
    case aborted = 10
    case outOfRange = 11
    case unimplemented = 12
    case `internal` = 13
    case unavailable = 14
    case dataLoss = 15
    case unauthenticated = 16
  }
}

extension GRPCStatus.Code {
  /// The value of `grpc-status`; what is no number, or none of a code, counts as unknown.
  init(header text: UnsafeRawBufferPointer) {
    var number = 0
    for place in 0..<text.count {
      let byte = unsafe text[place]
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), number < 100 else {
        self = .unknown
        return
      }
      number = number * 10 + Int(byte - UInt8(ascii: "0"))
    }
    self = unsafe text.isEmpty ? .unknown : Self(rawValue: UInt8(min(number, 255))) ?? .unknown
  }

  /// What a response without `grpc-status` means: it came from something between here and the server.
  init(httpStatus: Int) {
    self =
      switch httpStatus {
      case 400: .internal
      case 401: .unauthenticated
      case 403: .permissionDenied
      case 404: .unimplemented
      case 429, 502, 503, 504: .unavailable
      default: .unknown
      }
  }

  /// What a stream that was reset without trailers means, by the HTTP/2 error code (RFC 9113 section 7).
  /// Where the gRPC specification and Go's library differ, this is the library, because etcd's clients are
  /// made with it.
  init(resetCode: UInt32) {
    self =
      switch resetCode {
      case 0x3, 0xB: .resourceExhausted  // FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM
      case 0x7: .unavailable  // REFUSED_STREAM
      case 0x8: .canceled  // CANCEL
      case 0xC: .permissionDenied  // INADEQUATE_SECURITY
      case 0x0...0xD: .internal
      default: .unknown
      }
  }
}
