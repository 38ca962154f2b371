internal import Reactor

/// What became of a message that entered or left a namespace.
enum NamespaceVerdict: Sendable {
  /// The message to send instead stands behind what the buffer held.
  case rewritten
  /// The message goes on as it is; nothing was written.
  case unchanged
  /// The call ends with this status and reaches nobody.
  case refused(GRPCStatus.Code, StaticString)
  /// The message is no protobuf.
  case malformed
  /// Strict namespaces only: fine if every key attached to this lease lies inside, which etcd has to be
  /// asked. Then the message goes on as with `rewritten` or, if not `isRewritten`, with `unchanged`.
  case needsLeaseCheck(Int64, isRewritten: Bool)
}

/// A part of etcd's key space that a client takes for the whole: every key of it begins with a prefix that
/// the client never sees.
///
/// Inside is what is longer than the prefix; the prefix itself would be the empty key, which etcd does not
/// have. What etcd's own proxy does otherwise, and why this does not:
/// - the end of the namespace is the prefix cut after its last byte below 0xff, and that one incremented.
///   etcd carries into the byte before without cutting (`61 ff` becomes `62 00`), which leaves the key `62`
///   inside;
/// - an empty key is refused everywhere, in transactions too, as etcd itself does. etcd's proxy makes the
///   prefix of it, a key outside. Watches take an empty key for the smallest one, `00`, here as there;
/// - names and keys of locks and elections lie inside;
/// - an answer with a key that is not inside loses it, or is refused if it cannot do without.
///
/// A namespace alone is a convenience: administrative calls still see the whole key space. A strict one
/// refuses what reaches outside (`admits`).
struct Namespace: Sendable {
  let prefix: [UInt8]
  /// The first key behind all that begin with the prefix, as an interval's end: `00` if there is none.
  let end: [UInt8]
  /// The first key inside.
  let first: [UInt8]
  let isStrict: Bool

  /// Without a prefix there is no namespace and every message is unchanged, strict or not.
  init(prefix: [UInt8], strict: Bool) {
    self.prefix = prefix
    end = RangeRequest.end(ofPrefix: prefix)
    first = prefix + [0]
    isStrict = strict && !prefix.isEmpty
  }

  /// A message from the client. The verdict is meant for each message of a stream.
  func request(
    _ method: EtcdMethod, _ message: UnsafeRawBufferPointer, into output: inout ByteBuffer
  ) -> NamespaceVerdict {
    guard !prefix.isEmpty else { return .unchanged }
    guard admits(method) else { return Self.denied }
    let base = output.count
    do {
      if let verdict = unsafe try admission(method, message) { return verdict }
      guard let shape = NamespaceRequest.Shape(method) else { return .unchanged }
      var request = NamespaceRequest(self)
      unsafe try request.rewrite(message, shape, into: &output)
      if !request.isRewritten { output.truncate(to: base) }
      if isStrict, request.lease != 0 {
        return .needsLeaseCheck(request.lease, isRewritten: request.isRewritten)
      }
      return request.isRewritten ? .rewritten : .unchanged
    } catch {
      output.truncate(to: base)
      return error.verdict
    }
  }

  /// A message from etcd, in answer to a request of this namespace.
  func response(
    _ method: EtcdMethod, _ message: UnsafeRawBufferPointer, into output: inout ByteBuffer
  ) -> NamespaceVerdict {
    guard !prefix.isEmpty, let shape = NamespaceResponse.Shape(method) else { return .unchanged }
    let base = output.count
    do {
      var response = NamespaceResponse(self)
      guard unsafe try response.strip(message, shape, depth: 0, into: &output) else {
        output.truncate(to: base)
        return .refused(.internal, "ringway: etcd answered with a key outside the namespace")
      }
      if response.isRewritten { return .rewritten }
      output.truncate(to: base)
      return .unchanged
    } catch {
      output.truncate(to: base)
      return error.verdict
    }
  }

  static let denied = NamespaceVerdict.refused(.permissionDenied, "etcdserver: permission denied")
}

/// Why a message is not rewritten.
enum NamespaceFault: Error {
  case malformed
  case refused(GRPCStatus.Code, StaticString)

  static let emptyKey = NamespaceFault.refused(.invalidArgument, "etcdserver: key is not provided")
  static let tooDeep = NamespaceFault.refused(
    .invalidArgument, "etcdserver: too many operations in txn request")
  static let denied = NamespaceFault.refused(.permissionDenied, "etcdserver: permission denied")

  var verdict: NamespaceVerdict {
    switch self {
    case .malformed: .malformed
    case .refused(let code, let text): .refused(code, text)
    }
  }
}

extension ProtoReader {
  /// The next field, for those who refuse messages for more reasons.
  mutating func field() throws(NamespaceFault) -> ProtoField? {
    do { return try next() } catch { throw .malformed }
  }
}
