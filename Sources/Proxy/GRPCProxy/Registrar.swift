internal import Glibc
internal import Reactor

/// Registers the proxy under `--resolver-prefix` and keeps the list of all that are registered there, which is what
/// MemberList answers.
///
/// The entry has the form of etcd's naming package, hangs on a lease of `--resolver-ttl` seconds, and is made anew when
/// the lease is lost; at a drain the lease is revoked, so that clients stop coming at once.
final class Registrar {
  private enum Timing {
    static let pause = Instant.Span.seconds(1)
    static let limit = Instant.Span.seconds(2)
  }

  private unowned let core: Core
  private let pool = BlockPool()
  private let shared: ProxyShared
  private let client: EtcdClient
  /// The endpoint to talk to.
  private let endpoint: () -> Endpoint?
  /// Told whenever the registered proxies change.
  var changed: ([Member]) -> Void = { _ in }

  private var lease: Int64 = 0
  /// When the lease was last granted or renewed.
  private var renewed = Instant(nanoseconds: 0)
  private var nextTry = Instant(nanoseconds: 0)
  private var isBusy = false
  private var isListing = false
  private var watch: EtcdClient.Job?
  private var members: [String: Member] = [:]
  private(set) var isDone = true
  /// Set by `leave`: called when nothing of the entry is left.
  private var whenLeft: (() -> Void)?

  init(core: Core, shared: ProxyShared, client: EtcdClient, endpoint: @escaping () -> Endpoint?) {
    self.core = core
    self.shared = shared
    self.client = client
    self.endpoint = endpoint
  }

  private var seconds: Int64 { Int64(shared.options.resolverTTL) }
  private var prefix: [UInt8] { Array((shared.options.namespace + shared.options.resolverPrefix + "/").utf8) }
  private var key: [UInt8] { prefix + Array(shared.options.advertiseURL.utf8) }

  /// Once a second.
  func tick() {
    guard core.now >= nextTry else { return }
    if watch == nil, !isListing { list() }
    guard !isBusy else { return }
    if lease == 0 {
      register()
    } else if core.now - renewed >= .milliseconds(UInt64(seconds) * 1000 / 3) {
      renew()
    }
  }

  private func message(_ encode: (inout ByteBuffer) -> Void) -> [UInt8] {
    var buffer = ByteBuffer(pool)
    encode(&buffer)
    return unsafe Array(buffer.bytes)
  }

  // MARK: The own entry

  private func register() {
    guard let endpoint = endpoint() else { return }
    isBusy = true
    let request = message { LeaseGrantRequest(seconds: seconds).encode(into: &$0) }
    client.call("/etcdserverpb.Lease/LeaseGrant", request, at: endpoint, within: Timing.limit) {
      [unowned self] result in
      guard case .success(let bytes) = result,
        let granted = unsafe bytes.withUnsafeBytes({ unsafe try? LeaseGrantResponse($0) }), granted.id != 0
      else { return failed(result) }
      if whenLeft != nil { return leave(granted.id, endpoint) }
      write(granted.id, endpoint)
    }
  }

  private func write(_ id: Int64, _ endpoint: Endpoint) {
    let entry = Registration(address: shared.options.advertiseURL, name: HostName.own).json
    let request = message { PutRequest(key: key, value: entry, lease: id).encodeTransaction(into: &$0) }
    client.call("/etcdserverpb.KV/Txn", request, at: endpoint, within: Timing.limit) {
      [unowned self] result in
      // Whoever leaves takes along what was just written, or may have been.
      if whenLeft != nil { return leave(id, endpoint) }
      guard case .success = result else {
        revoke(id, endpoint) {}
        return failed(result)
      }
      isBusy = false
      lease = id
      renewed = core.now
      shared.log.info(
        "registered session with lease", .string("addr", shared.options.advertiseURL),
        .int("lease-ttl", seconds))
    }
  }

  private func failed(_ result: Result<[UInt8], EtcdClient.Failure>) {
    isBusy = false
    if whenLeft != nil { return left() }
    nextTry = core.now + Timing.pause
    if case .failure(let failure) = result {
      shared.log.warn("failed to create a session", .string("error", failure.text))
    }
  }

  private func renew() {
    guard let endpoint = endpoint() else { return checkExpiry() }
    isBusy = true
    let request = message { LeaseRequest(id: lease).encode(into: &$0) }
    client.call("/etcdserverpb.Lease/LeaseKeepAlive", request, at: endpoint, within: Timing.limit) {
      [unowned self] result in
      isBusy = false
      if whenLeft != nil { return }
      guard case .success(let bytes) = result,
        let answer = unsafe bytes.withUnsafeBytes({ unsafe try? LeaseKeepAliveResponse($0) })
      else { return checkExpiry() }
      if answer.seconds > 0 { renewed = core.now } else { lost() }
    }
  }

  private func checkExpiry() {
    if core.now - renewed >= .seconds(UInt64(seconds)) { lost() }
  }

  private func lost() {
    lease = 0
    shared.log.warn("session expired; possible network partition or server restart")
    shared.log.warn("creating a new session to rejoin")
  }

  private func revoke(_ id: Int64, _ endpoint: Endpoint, _ done: @escaping () -> Void) {
    let request = message { LeaseRequest(id: id).encode(into: &$0) }
    client.call("/etcdserverpb.Lease/LeaseRevoke", request, at: endpoint, within: Timing.limit) { _ in done()
    }
  }

  /// Takes the entry away; `isDone` once etcd has heard of it.
  func leave(_ done: @escaping () -> Void) {
    guard whenLeft == nil else { return }
    nextTry = .distantFuture
    whenLeft = done
    if let watch { client.cancel(watch) }
    watch = nil
    // A registration that is under way has to come to its end before it can be taken back.
    isDone = false
    if lease == 0, isBusy { return }
    guard lease != 0, let endpoint = endpoint() else { return left() }
    leave(lease, endpoint)
  }

  private func leave(_ id: Int64, _ endpoint: Endpoint) {
    lease = 0
    revoke(id, endpoint) { [unowned self] in left() }
  }

  private func left() {
    isDone = true
    whenLeft?()
  }

  // MARK: The others

  private func list() {
    guard let endpoint = endpoint() else { return }
    isListing = true
    let request = message {
      var range = RangeRequest(key: prefix)
      range.rangeEnd = RangeRequest.end(ofPrefix: prefix)
      range.encode(into: &$0)
    }
    client.call("/etcdserverpb.KV/Range", request, at: endpoint, within: Timing.limit) {
      [unowned self] result in
      isListing = false
      if whenLeft != nil { return }
      guard case .success(let bytes) = result else { return watchEnded(result) }
      members.removeAll()
      var revision: Int64 = 0
      unsafe bytes.withUnsafeBytes { bytes in
        guard let answer = unsafe try? RangeResponse(bytes) else { return }
        revision = answer.header.revision
        var pairs = answer.keyValues
        while let bytes = unsafe try? pairs.next(), let pair = unsafe try? KeyValue(bytes) {
          unsafe note(Array(pair.key), Array(pair.value))
        }
      }
      changed(Array(members.values))
      follow(from: revision + 1, endpoint)
    }
  }

  private func follow(from revision: Int64, _ endpoint: Endpoint) {
    let request = message {
      var create = WatchCreateRequest()
      create.key = prefix
      create.rangeEnd = RangeRequest.end(ofPrefix: prefix)
      create.startRevision = revision
      create.encode(into: &$0)
    }
    let job = client.stream("/etcdserverpb.Watch/Watch", request, at: endpoint) { [unowned self] message in
      unsafe message.withUnsafeBytes { bytes in
        guard let answer = unsafe try? WatchResponse(bytes) else { return }
        if answer.isCanceled { return endWatch() }
        var isNews = false
        var events = answer.events
        while let bytes = unsafe try? events.next(), let event = unsafe try? WatchEvent(bytes),
          let pair = unsafe try? KeyValue(event.keyValue)
        {
          isNews = true
          if event.isDelete {
            members[unsafe String(decoding: pair.key, as: UTF8.self)] = nil
          } else {
            unsafe note(Array(pair.key), Array(pair.value))
          }
        }
        if isNews { changed(Array(members.values)) }
      }
    } _: { [unowned self] result in
      watch = nil
      watchEnded(result)
    }
    watch = job.isOver ? nil : job
  }

  private func endWatch() {
    guard let watch else { return }
    client.cancel(watch)
    self.watch = nil
    watchEnded(.failure(.timeout))
  }

  private func watchEnded(_ result: Result<[UInt8], EtcdClient.Failure>) {
    nextTry = max(nextTry, core.now + Timing.pause)
    if case .failure(let failure) = result {
      shared.log.warn(
        "watching endpoints interrupted", .string("prefix", shared.options.resolverPrefix),
        .string("error", failure.text))
    }
  }

  private func note(_ key: [UInt8], _ value: [UInt8]) {
    guard let entry = Registration(value) else {
      return shared.log.warn(
        "unmarshal endpoint update failed", .string("key", String(decoding: key, as: UTF8.self)))
    }
    members[String(decoding: key, as: UTF8.self)] = Member(
      name: entry.name ?? "", clientURLs: [entry.address])
  }
}
