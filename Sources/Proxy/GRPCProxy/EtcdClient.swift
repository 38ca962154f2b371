internal import Glibc
internal import Reactor

/// Calls that the proxy makes for itself, on the control thread: health checks, registration, member lists. A handful a second,
/// so that clarity counts for more than allocations.
final class EtcdClient {
  private enum Operation {
    static let receive: UInt8 = 0
    static let send: UInt8 = 1
    static let room: UInt8 = 2
    static let connect: UInt8 = 3
    static let timer: UInt8 = 4
  }

  /// Why there is no answer.
  enum Failure: Error {
    /// No connection, or it broke.
    case transport(SystemError)
    /// The time was up.
    case timeout
    /// The endpoint answered with a status.
    case status(GRPCStatus)

    var text: String {
      switch self {
      case .transport(let error): "\(error)"
      case .timeout: "context deadline exceeded"
      case .status(let status): String(decoding: status.message, as: UTF8.self)
      }
    }
  }

  typealias Completion = (Result<[UInt8], Failure>) -> Void

  /// A call under way, or waiting for its connection.
  final class Job {
    let path: String
    /// Nil for a page (GET), else the request's message.
    let message: [UInt8]?
    let endpoint: Endpoint
    /// For streams: every message as it comes.
    let each: (([UInt8]) -> Void)?
    fileprivate var completion: Completion?
    /// Sent as `token`, if not empty.
    fileprivate var credentials: [UInt8] = []
    /// Its completion has been called, which a call that cannot even begin does at once.
    var isOver: Bool { completion == nil }
    fileprivate var received: [UInt8] = []
    fileprivate var status = 0
    fileprivate var stream: UInt32 = 0
    fileprivate let serial: UInt32
    fileprivate var timer = TimerWheel.Timer.none

    fileprivate init(
      path: String, message: [UInt8]?, endpoint: Endpoint, serial: UInt32, each: (([UInt8]) -> Void)?,
      completion: @escaping Completion
    ) {
      self.path = path
      self.message = message
      self.endpoint = endpoint
      self.serial = serial
      self.each = each
      self.completion = completion
    }
  }

  private final class Connection {
    var transport: Transport
    let endpoint: Endpoint
    var address: Int
    var isConnecting = true
    var isReady = false
    var isEnded = false
    var jobs: [UInt32: Job] = [:]

    init(_ transport: consuming Transport, endpoint: Endpoint, address: Int) {
      self.transport = transport
      self.endpoint = endpoint
      self.address = address
    }
  }

  private unowned let core: Core
  private let owner: UInt8
  private let pool = BlockPool()
  private let context: HTTP2Context
  private let outgoing = HeaderList()
  private var scratch: ByteBuffer
  private var connections: [UInt32: Connection] = [:]
  private var serial: UInt32 = 0
  private var jobs: [UInt32: Job] = [:]
  /// Connections that may have something to send.
  private var touched: Set<UInt32> = []
  /// Towards etcd; nil for plain text.
  var tls: TLSClientContext?
  private let connectTimeout: Instant.Span

  init(core: Core, owner: UInt8, tls: TLSClientContext?, connectTimeout: Instant.Span) {
    self.core = core
    self.owner = owner
    self.tls = tls
    self.connectTimeout = connectTimeout
    context = HTTP2Context(settings: GRPCProxyOptions.upstreamSettings, pool: pool)
    scratch = ByteBuffer(pool)
  }

  /// Buffers go before the pool that they came from.
  deinit { connections.removeAll() }

  private func token(_ operation: UInt8, _ number: UInt32) -> Token {
    Token(owner: owner, operation: operation, handle: Handle(slot: 0, generation: number))
  }

  // MARK: Calls

  /// Makes a unary call.
  func call(
    _ path: String, _ message: [UInt8], at endpoint: Endpoint, within limit: Instant.Span,
    token: [UInt8] = [],
    _ completion: @escaping Completion
  ) {
    begin(path, message, endpoint, limit, nil, token: token, completion)
  }

  /// Opens a stream of answers; `completion` is called when it ends.
  func stream(
    _ path: String, _ message: [UInt8], at endpoint: Endpoint, each: @escaping ([UInt8]) -> Void,
    _ completion: @escaping Completion
  ) -> Job {
    begin(path, message, endpoint, nil, each, completion)
  }

  /// Fetches a page over HTTP/2.
  func get(
    _ path: String, at endpoint: Endpoint, within limit: Instant.Span, _ completion: @escaping Completion
  ) {
    begin(path, nil, endpoint, limit, nil, completion)
  }

  @discardableResult private func begin(
    _ path: String, _ message: [UInt8]?, _ endpoint: Endpoint, _ limit: Instant.Span?,
    _ each: (([UInt8]) -> Void)?,
    token credentials: [UInt8] = [], _ completion: @escaping Completion
  ) -> Job {
    serial &+= 1
    let job = Job(
      path: path, message: message, endpoint: endpoint, serial: serial, each: each, completion: completion)
    job.credentials = credentials
    jobs[job.serial] = job
    if let limit {
      job.timer = core.timers.schedule(at: core.now + limit, token(Operation.timer, job.serial))
    }
    if let (number, connection) = connections.first(where: {
      !$0.value.isEnded && $0.value.endpoint.isSamePlace(as: endpoint)
    }) {
      if connection.isReady { send(job, connection, number) }
    } else {
      connect(endpoint, address: 0)
    }
    return job
  }

  /// Forgets a call; its completion is not called.
  func cancel(_ job: Job) {
    job.completion = nil
    finish(job, .failure(.timeout))
  }

  private func finish(_ job: Job, _ result: Result<[UInt8], Failure>) {
    guard jobs.removeValue(forKey: job.serial) != nil else { return }
    core.timers.cancel(job.timer)
    for (number, connection) in connections where connection.jobs[job.stream] === job {
      connection.jobs[job.stream] = nil
      if !connection.isEnded {
        connection.transport.http2.reset(job.stream, .cancel)
        flush(connection, number)
      }
    }
    let completion = job.completion
    job.completion = nil
    completion?(result)
  }

  private func send(_ job: Job, _ connection: Connection, _ number: UInt32) {
    outgoing.removeAll()
    outgoing.append(":method", job.message == nil ? "GET" : "POST")
    outgoing.append(":scheme", tls == nil ? "http" : "https")
    unsafe job.path.withUTF8Bytes { unsafe outgoing.append(":path", $0) }
    unsafe connection.endpoint.authority.withUnsafeBytes { unsafe outgoing.append(":authority", $0) }
    if job.message != nil {
      outgoing.append("content-type", "application/grpc")
      outgoing.append("te", "trailers")
    }
    outgoing.append("user-agent", "ringway")
    if !job.credentials.isEmpty {
      unsafe job.credentials.withUnsafeBytes { unsafe outgoing.append("token", $0) }
    }
    guard
      let stream = connection.transport.http2.open(
        outgoing, endStream: job.message == nil, user: Handle(slot: 0, generation: job.serial))
    else { return finish(job, .failure(.transport(SystemError(code: EAGAIN)))) }
    job.stream = stream
    connection.jobs[stream] = job
    if let message = job.message {
      var frame = ByteBuffer(pool)
      GRPCMessage.begin(&frame)
      frame.append(message)
      GRPCMessage.end(&frame, from: 0)
      _ = unsafe connection.transport.http2.send(stream, frame.bytes, endStream: job.each == nil)
    }
    flush(connection, number)
  }

  // MARK: Connections

  private func connect(_ endpoint: Endpoint, address: Int) {
    let target = endpoint.addresses[address]
    let descriptor = core.kernel.socket(family: target.family)
    guard descriptor >= 0 else { return failAll(endpoint, SystemError(code: -descriptor)) }
    let session = tls.flatMap { try? TLSSession(client: $0, serverName: endpoint.serverName) }
    if tls != nil, session == nil {
      core.kernel.close(descriptor)
      return failAll(endpoint, SystemError(code: EPROTO))
    }
    serial &+= 1
    let transport = Transport(descriptor, HTTP2Session(.client, context), tls: session, pool)
    connections[serial] = Connection(transport, endpoint: endpoint, address: address)
    core.kernel.connect(descriptor, to: target, token(Operation.connect, serial))
  }

  private func failAll(_ endpoint: Endpoint, _ error: SystemError) {
    for job in Array(jobs.values) where job.stream == 0 && job.endpoint.isSamePlace(as: endpoint) {
      finish(job, .failure(.transport(error)))
    }
  }

  /// Ends every connection to what is no endpoint any more, and all for new certificates.
  func retain(_ endpoints: [Endpoint]) {
    for (number, connection) in connections
    where !endpoints.contains(where: { $0.isSamePlace(as: connection.endpoint) }) {
      end(connection, number, SystemError(code: ECANCELED))
    }
  }

  func complete(_ completion: Reactor.Completion) {
    let number = completion.token.handle.generation
    guard let connection = connections[number] else {
      if completion.buffer != BufferPool.none { core.kernel.release(completion.buffer) }
      return
    }
    switch completion.token.operation {
    case Operation.connect: connected(connection, number, completion.result)
    case Operation.receive: received(connection, number, completion)
    case Operation.send:
      connection.transport.sendEnded(
        completion.result, core.kernel, poll: connection.isEnded ? nil : token(Operation.room, number))
      if connection.transport.isBroken { end(connection, number, SystemError(code: -completion.result)) }
    default: connection.transport.roomCame()
    }
    if connection.isEnded {
      remove(connection, number)
    } else {
      flush(connection, number)
    }
  }

  func expire(_ token: Token) {
    guard let job = jobs[token.handle.generation] else { return }
    job.timer = .none
    finish(job, .failure(.timeout))
    // A connection that takes calls and answers none, or never came up, is of no use to the next one either.
    for (number, connection) in connections
    where !connection.isEnded && connection.endpoint.isSamePlace(as: job.endpoint) {
      if connection.isConnecting || core.now - connection.transport.http2.lastReceived >= connectTimeout {
        end(connection, number, SystemError(code: ETIMEDOUT))
      }
    }
  }

  private func connected(_ connection: Connection, _ number: UInt32, _ result: Int32) {
    connection.isConnecting = false
    guard !connection.isEnded else { return }
    guard result >= 0 else {
      let next = connection.address + 1
      connection.isEnded = true
      if next < connection.endpoint.addresses.count {
        return connect(connection.endpoint, address: next)
      }
      return failAll(connection.endpoint, SystemError(code: -result))
    }
    if let tls = connection.transport.tls { tls.start(out: &connection.transport.cipher) }
    connection.transport.receive(core.kernel, token(Operation.receive, number))
  }

  private func received(_ connection: Connection, _ number: UInt32, _ completion: Reactor.Completion) {
    if !completion.more { connection.transport.isReceiving = false }
    if completion.result > 0, completion.buffer != BufferPool.none {
      let bytes = unsafe core.kernel.buffers.received(completion.buffer, Int(completion.result))
      if !connection.isEnded { unsafe take(connection, number, bytes) }
      core.kernel.release(completion.buffer)
    }
    guard !completion.more, !connection.isEnded else { return }
    switch completion.result {
    case 1..., -ENOBUFS, -EINTR, -EAGAIN:
      connection.transport.receive(core.kernel, token(Operation.receive, number))
    default:
      end(connection, number, SystemError(code: completion.result < 0 ? -completion.result : ECONNRESET))
    }
  }

  private func take(_ connection: Connection, _ number: UInt32, _ bytes: UnsafeRawBufferPointer) {
    let (plain, state) = unsafe connection.transport.take(bytes, scratch: &scratch)
    if plain.count > 0 {
      unsafe connection.transport.http2.receive(plain)
      read(connection, number)
    }
    scratch.removeAll()
    switch state {
    case .failed, .closedByPeer: end(connection, number, SystemError(code: EPROTO))
    default: break
    }
  }

  private func read(_ connection: Connection, _ number: UInt32) {
    while !connection.isEnded, let event = connection.transport.http2.next(core.now) {
      switch event {
      case .headers(let stream, _, let endStream): headCame(connection, stream, endStream)
      case .trailers(let stream, _): statusCame(connection, stream)
      case .data(let stream, _, let bytes, let endStream):
        connection.transport.http2.credit(stream, bytes.count)
        unsafe dataCame(connection, stream, bytes, endStream)
      case .reset(let stream, _, _), .unprocessed(let stream, _):
        if let job = connection.jobs[stream] {
          finish(job, .failure(.transport(SystemError(code: ECONNRESET))))
        }
      case .settings where !connection.isReady:
        connection.isReady = true
        for job in Array(jobs.values)
        where job.stream == 0 && job.endpoint.isSamePlace(as: connection.endpoint) {
          send(job, connection, number)
        }
      case .goAway, .failed: end(connection, number, SystemError(code: ECONNRESET))
      default: break
      }
    }
  }

  private func headCame(_ connection: Connection, _ stream: UInt32, _ endStream: Bool) {
    guard let job = connection.jobs[stream] else { return }
    if let text = unsafe context.received.value(of: .status) {
      job.status = unsafe Int(String(decoding: text, as: UTF8.self)) ?? 0
    }
    if endStream { statusCame(connection, stream) }
  }

  private func statusCame(_ connection: Connection, _ stream: UInt32) {
    guard let job = connection.jobs[stream] else { return }
    if job.message == nil { return pageCame(job) }
    let status = GRPCStatus(context.received)
    guard status.code == .ok else { return finish(job, .failure(.status(status))) }
    let message = job.received.count >= GRPCMessage.prefix ? Array(job.received[GRPCMessage.prefix...]) : []
    finish(job, .success(message))
  }

  private func dataCame(
    _ connection: Connection, _ stream: UInt32, _ bytes: UnsafeRawBufferPointer, _ endStream: Bool
  ) {
    guard let job = connection.jobs[stream] else { return }
    unsafe job.received.append(contentsOf: bytes)
    if job.received.count > Limits.ownAnswerBytes {
      return finish(job, .failure(.transport(SystemError(code: EMSGSIZE))))
    }
    if let each = job.each {
      while let length = unsafe job.received.withUnsafeBytes({ unsafe GRPCMessage.complete($0) }) {
        let message = Array(job.received[GRPCMessage.prefix..<length])
        job.received.removeFirst(length)
        each(message)
      }
    }
    if endStream, job.message == nil { pageCame(job) }
  }

  private func pageCame(_ job: Job) {
    finish(job, job.status == 200 ? .success(job.received) : .failure(.transport(SystemError(code: EPROTO))))
  }

  private func end(_ connection: Connection, _ number: UInt32, _ error: SystemError) {
    guard !connection.isEnded else { return }
    connection.isEnded = true
    connection.transport.cancel(
      core.kernel, receive: token(Operation.receive, number), poll: token(Operation.room, number))
    if connection.isConnecting {
      core.kernel.cancel(token(Operation.connect, number), on: connection.transport.descriptor)
    }
    for job in Array(connection.jobs.values) { finish(job, .failure(.transport(error))) }
    if !connection.isReady { failAll(connection.endpoint, error) }
    remove(connection, number)
  }

  /// Closes the socket once the kernel has let go of it, and only then, and once: its number may be another's by now.
  private func remove(_ connection: Connection, _ number: UInt32) {
    guard connection.isEnded, !connection.isConnecting, !connection.transport.isInFlight else { return }
    guard connections.removeValue(forKey: number) != nil else { return }
    core.kernel.close(connection.transport.descriptor)
  }

  /// Notes that there may be something to send: it leaves at the end of the turn, all in one.
  private func flush(_ connection: Connection, _ number: UInt32) { touched.insert(number) }

  /// The end of the core's turn.
  func finishTurn() {
    for number in touched {
      guard let connection = connections[number], !connection.isEnded, !connection.isConnecting else {
        continue
      }
      connection.transport.flush(core.kernel, token(Operation.send, number))
    }
    touched.removeAll(keepingCapacity: true)
  }
}
