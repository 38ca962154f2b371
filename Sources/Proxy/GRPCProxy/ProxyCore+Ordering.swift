internal import Reactor

/// `--experimental-serializable-ordering`: what clients read does not go backwards from one endpoint to the next
/// (etcd's client/v3/ordering; in etcd's proxy the flag has no effect).
///
/// The newest revision that any client has seen is kept for the whole process. An answer that is older is thrown away and the
/// read made again at another endpoint; when none is new enough, the call fails as it would in etcd's client.
extension ProxyCore {
  /// Whether answers to the method are held back until their revision is known.
  func orders(_ method: EtcdMethod) -> Bool {
    guard options.serializableOrdering else { return false }
    switch method {
    case .range, .put, .deleteRange, .txn: return true
    default: return false
    }
  }

  /// Notes the answer's revision. False when it is older than what has been seen, and another endpoint is worth a try.
  func isInOrder(_ call: inout Call, _ revision: Int64, _ slot: Int) -> Bool {
    guard isForwards(&call, revision) else { return false }
    guard options.serializableOrdering else { return true }
    let newest = shared.newestRevision.max(revision, ordering: .relaxed).newValue
    guard revision < newest, call.method.isRead, call.isRepeatable, now < call.deadline else { return true }
    call.staleAnswers += 1
    // As many tries as etcd's client makes: five at each endpoint.
    return call.staleAnswers > 5 * table.endpoints.count
  }

  /// False when the answer to a serializable read is behind what its client has seen: it is made linearizable.
  private func isForwards(_ call: inout Call, _ revision: Int64) -> Bool {
    guard call.read.isSerializable else { return true }
    let shown = clients.edit(call.client) { $0.shown } ?? 0
    guard revision < shown else { return true }
    if call.isRepeatable, !call.read.isLinearized, now < call.deadline {
      linearize(&call)
      return false
    }
    // This is what etcd's members agree upon: what was shown before was of another store.
    if call.read.isLinearized { _ = clients.edit(call.client) { $0.shown = revision } }
    return true
  }

  /// What was collected of an answer goes on.
  func passCollected(_ call: inout Call) -> (GRPCStatus.Code, String)? {
    let newest = options.serializableOrdering ? shared.newestRevision.load(ordering: .relaxed) : 0
    if let revision = call.answeredRevision, revision < newest, call.staleAnswers > 0 {
      return (
        .unknown,
        "etcdclient: no cluster members have a revision higher than the previously received revision"
      )
    }
    if call.rewrites { return rewriteAnswer(&call) }
    _ = unsafe pass(call.outbox.bytes, of: &call)
    call.outbox.removeAll()
    return nil
  }
}

extension Call {
  /// The revision in the header of the answer, once so much of it has come.
  var answeredRevision: Int64? {
    if answered >= 0 { return answered }
    guard let length = unsafe GRPCMessage.complete(outbox.bytes) else { return nil }
    let message = unsafe UnsafeRawBufferPointer(rebasing: outbox.bytes[GRPCMessage.prefix..<length])
    return (unsafe try? ResponseHeader.of(answer: message))?.revision ?? 0
  }
}
