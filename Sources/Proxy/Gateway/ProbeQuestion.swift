internal import Reactor

/// What a health check asks an endpoint, and what it makes of the answer. A machine without I/O.
@safe struct ProbeQuestion {
  enum Kind { case none, request, greeting }

  /// What an answer says.
  enum Verdict { case more, lives, sick }

  private static let answerRoom = 16 << 10

  /// What to send; kept until it has left.
  let bytes: [UInt8]
  private let kind: Kind
  private var answer: [UInt8] = []

  init(_ kind: Kind, endpoint: Endpoint, tls: TLSContext?) {
    self.kind = kind == .greeting && tls == nil ? .none : kind
    switch self.kind {
    case .none: bytes = []
    case .greeting:
      bytes = Self.greeting(tls)
    case .request:
      // Two requests, answered in order: the first needs nothing but a living process, the second asks etcd whether it
      // has a leader and can serve. So a member that is merely slow is never taken for one that hangs.
      let host = "Host: \(endpoint.name)\r\n"
      bytes = Array(
        "GET /version HTTP/1.1\r\n\(host)\r\nGET /health HTTP/1.1\r\n\(host)Connection: close\r\n\r\n".utf8)
    }
  }

  private static func greeting(_ tls: TLSContext?) -> [UInt8] {
    guard let tls, var handshake = try? TLSHandshake(context: tls, serverName: nil) else { return [] }
    return handshake.start()
  }

  /// True once the endpoint has sent anything.
  var hasAnswered: Bool { !answer.isEmpty }

  /// The question's bytes at a fixed place; they stay there while this value lives.
  func withBytes(_ body: (UnsafeRawBufferPointer) -> Void) { unsafe bytes.withUnsafeBytes(body) }

  /// Takes what the endpoint sent.
  ///
  /// - Parameter ended: the stream has ended. That is an answer too: only a living process ends it, for instance one
  ///   that speaks TLS and was greeted in plain text.
  mutating func heard(_ received: ArraySlice<UInt8>, ended: Bool) -> Verdict {
    answer.append(contentsOf: received.prefix(Self.answerRoom - answer.count))
    guard kind == .request else { return .lives }
    let statuses = Self.statuses(answer)
    if statuses.count >= 2 { return statuses[1] == 503 ? .sick : .lives }
    // Not HTTP at all, or more of it than a health check has any use for: it lives, and that is all there is to know.
    let isHTTP = answer.starts(with: Array("HTTP/1.".utf8).prefix(answer.count))
    return ended || !isHTTP || answer.count >= Self.answerRoom ? .lives : .more
  }

  /// The status codes of all complete status lines in the answer.
  private static func statuses(_ answer: [UInt8]) -> [Int] {
    let mark = Array("HTTP/1.".utf8)
    var found: [Int] = []
    var index = 0
    while index + 12 <= answer.count {
      if answer[index] == mark[0], answer[index..<index + mark.count].elementsEqual(mark) {
        let digits = answer[index + 9..<index + 12]
        if let code = Int(String(decoding: digits, as: UTF8.self)) { found.append(code) }
        index += 12
      } else {
        index += 1
      }
    }
    return found
  }
}
