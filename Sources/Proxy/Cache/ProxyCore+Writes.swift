internal import Reactor
internal import Synchronization

/// What one core's cache tells the others'.
enum CacheNews: Sendable {
  /// Keys as `WrittenKeys` lays them down, and the revision; nil if nobody knows whether they were written.
  case wrote([UInt8], Int64?)
  /// Somebody's rights may have changed.
  case flush
}

/// Whether a core has, or is about to have, something in its cache: others need not be told what concerns nobody.
final class CacheInterest: Sendable {
  private let isThere = Atomic<Bool>(false)

  /// Said before a read leaves for etcd, so that whoever writes before that read is answered knows of it.
  func show() {
    if !isThere.load(ordering: .relaxed) { isThere.store(true, ordering: .sequentiallyConsistent) }
  }

  func hide() { isThere.store(false, ordering: .sequentiallyConsistent) }
  var isShown: Bool { isThere.load(ordering: .sequentiallyConsistent) }
}

/// Writes and what else passes through that the cache must know of.
extension ProxyCore {
  /// Bytes of a request have come: what it writes is noted before it is rewritten or gone.
  func noteWrites(_ call: inout Call) {
    guard !call.isWriteNoted else { return }
    let bytes = unsafe call.rewrites ? call.inbox.bytes : call.request.bytes
    if let length = unsafe GRPCMessage.complete(bytes) {
      call.isWriteNoted = true
      let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[GRPCMessage.prefix..<length])
      if unsafe bytes[0] != 0 { return WrittenKeys.appendEverything(to: &call.written) }
      unsafe WrittenKeys.append(call.method, message, to: &call.written)
    } else if !call.rewrites, call.request.count > Limits.repeatableRequestBytes {
      // It goes on as it comes, and is not here when it ends.
      call.isWriteNoted = true
      WrittenKeys.appendEverything(to: &call.written)
    }
  }

  /// Whether the cache looks into the method's requests.
  func notesWrites(_ method: EtcdMethod) -> Bool {
    reads.isOn && WrittenKeys.isWrite(method)
  }

  /// The header of an answer has been read: the client is about to see this revision.
  func answerRevision(_ call: inout Call, _ revision: Int64) {
    call.answered = revision
    guard revision > 0 else { return }
    shared.noteSeen(revision)
    _ = clients.edit(call.client) { $0.shown = max($0.shown, revision) }
    settleWrite(&call, revision)
  }

  /// The call's write was made in this revision; nil if that is not known.
  private func settleWrite(_ call: inout Call, _ revision: Int64?) {
    guard !call.written.isEmpty else { return }
    unsafe reads.cache.wrote(call.written.bytes, revision)
    tellOthers { unsafe .wrote(Array(call.written.bytes), revision) }
    call.written.removeAll()
  }

  private func tellOthers(_ news: () -> CacheNews) {
    for core in shared.cacheInterest.indices where core != index && shared.cacheInterest[core].isShown {
      send(.cache(news()), to: core)
    }
  }

  /// A call is over, however it ended. Whatever may have happened in etcd has happened.
  func leaveCache(_ call: inout Call) {
    leaveRead(call)
    guard call.tries > 0, reads.isOn else { return }
    settleWrite(&call, nil)
    if call.method.changesAuth {
      forgetRights()
      tellOthers { .flush }
    }
  }

  private func forgetRights() {
    reads.cache.flush()
    reads.flights.unshare()
  }

  /// Another core has something to say.
  func handle(_ news: CacheNews) {
    switch news {
    case .wrote(let list, let revision):
      unsafe list.withUnsafeBytes { unsafe reads.cache.wrote($0, revision) }
    case .flush: forgetRights()
    }
  }

  /// About once a second.
  func sweepCache() {
    guard reads.isOn else { return }
    reads.cache.sweep(now)
    if reads.cache.entries.count == 0, reads.flights.flights.count == 0 { shared.cacheInterest[index].hide() }
  }
}
