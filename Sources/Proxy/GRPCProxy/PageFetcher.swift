internal import Glibc
internal import Reactor

/// Fetches pages over HTTP/1.0 in plain text: etcd's own metrics. A request a connection, so that the end of the stream is
/// the end of the page.
final class PageFetcher {
  private enum Operation {
    static let connect: UInt8 = 0
    static let send: UInt8 = 1
    static let receive: UInt8 = 2
    static let timer: UInt8 = 3
  }

  private final class Fetch {
    var descriptor: Int32
    let request: [UInt8]
    /// Of the endpoint; those that are left after the one in use.
    var addresses: ArraySlice<Address>
    var page: [UInt8] = []
    var completion: EtcdClient.Completion?
    var timer = TimerWheel.Timer.none
    /// The operation that is under way, if one is.
    var operation: UInt8?

    init(
      descriptor: Int32, request: [UInt8], addresses: ArraySlice<Address>,
      completion: @escaping EtcdClient.Completion
    ) {
      self.descriptor = descriptor
      self.request = request
      self.addresses = addresses
      self.completion = completion
    }
  }

  private unowned let core: Core
  private let owner: UInt8
  private var fetches: [UInt32: Fetch] = [:]
  private var serial: UInt32 = 0

  init(core: Core, owner: UInt8) {
    self.core = core
    self.owner = owner
  }

  private func token(_ operation: UInt8, _ number: UInt32) -> Token {
    Token(owner: owner, operation: operation, handle: Handle(slot: 0, generation: number))
  }

  func get(
    _ path: String, at endpoint: Endpoint, within limit: Instant.Span,
    _ completion: @escaping EtcdClient.Completion
  ) {
    guard fetches.count < Limits.pageFetches, let address = endpoint.addresses.first else {
      return completion(.failure(.transport(SystemError(code: EAGAIN))))
    }
    let descriptor = core.kernel.socket(family: address.family)
    guard descriptor >= 0 else { return completion(.failure(.transport(SystemError(code: -descriptor)))) }
    serial &+= 1
    let host = String(decoding: endpoint.authority, as: UTF8.self)
    let request = Array("GET \(path) HTTP/1.0\r\nHost: \(host)\r\nUser-Agent: ringway\r\n\r\n".utf8)
    let fetch = Fetch(
      descriptor: descriptor, request: request, addresses: endpoint.addresses.dropFirst(),
      completion: completion)
    fetch.operation = Operation.connect
    fetch.timer = core.timers.schedule(at: core.now + limit, token(Operation.timer, serial))
    fetches[serial] = fetch
    core.kernel.connect(descriptor, to: address, token(Operation.connect, serial))
  }

  func complete(_ completion: Completion) {
    let number = completion.token.handle.generation
    defer { if completion.buffer != BufferPool.none { core.kernel.release(completion.buffer) } }
    guard let fetch = fetches[number] else { return }
    if !completion.more { fetch.operation = nil }
    guard fetch.completion != nil else { return close(fetch, number) }
    switch completion.token.operation {
    case Operation.connect where completion.result >= 0:
      fetch.operation = Operation.send
      unsafe fetch.request.withUnsafeBytes {
        unsafe core.kernel.send(fetch.descriptor, $0, prompt: true, token(Operation.send, number))
      }
    case Operation.connect where tryNext(fetch, number): break
    case Operation.send where completion.result == fetch.request.count:
      fetch.operation = Operation.receive
      core.kernel.receive(fetch.descriptor, token(Operation.receive, number))
    case Operation.receive: received(fetch, number, completion)
    default: finish(fetch, number, .failure(.transport(SystemError(code: max(EIO, -completion.result)))))
    }
  }

  /// Connects to the endpoint's next address, if there is one.
  private func tryNext(_ fetch: Fetch, _ number: UInt32) -> Bool {
    guard let address = fetch.addresses.popFirst() else { return false }
    let descriptor = core.kernel.socket(family: address.family)
    guard descriptor >= 0 else { return false }
    core.kernel.close(fetch.descriptor)
    fetch.descriptor = descriptor
    fetch.operation = Operation.connect
    core.kernel.connect(descriptor, to: address, token(Operation.connect, number))
    return true
  }

  private func received(_ fetch: Fetch, _ number: UInt32, _ completion: Completion) {
    if completion.result > 0, completion.buffer != BufferPool.none {
      let bytes = unsafe core.kernel.buffers.received(completion.buffer, Int(completion.result))
      unsafe fetch.page.append(contentsOf: bytes)
      guard fetch.page.count <= Limits.ownAnswerBytes else {
        return finish(fetch, number, .failure(.transport(SystemError(code: EMSGSIZE))))
      }
    }
    guard !completion.more else { return }
    switch completion.result {
    case 1..., -ENOBUFS:
      fetch.operation = Operation.receive
      core.kernel.receive(fetch.descriptor, token(Operation.receive, number))
    case 0: finish(fetch, number, Self.body(of: fetch.page))
    default: finish(fetch, number, .failure(.transport(SystemError(code: -completion.result))))
    }
  }

  /// What follows the head of a page that is there.
  private static func body(of page: [UInt8]) -> Result<[UInt8], EtcdClient.Failure> {
    let mark = Array("\r\n\r\n".utf8)
    guard page.count > 12, page[9..<12].elementsEqual("200".utf8),
      let end = page.indices.dropLast(3).first(where: { page[$0..<$0 + 4].elementsEqual(mark) })
    else { return .failure(.transport(SystemError(code: EPROTO))) }
    return .success(Array(page[(end + 4)...]))
  }

  func expire(_ token: Token) {
    let number = token.handle.generation
    guard let fetch = fetches[number] else { return }
    fetch.timer = .none
    finish(fetch, number, .failure(.timeout))
  }

  private func finish(_ fetch: Fetch, _ number: UInt32, _ result: Result<[UInt8], EtcdClient.Failure>) {
    core.timers.cancel(fetch.timer)
    let completion = fetch.completion
    fetch.completion = nil
    close(fetch, number)
    completion?(result)
  }

  /// Closes the socket once the kernel has let go of it.
  private func close(_ fetch: Fetch, _ number: UInt32) {
    if let operation = fetch.operation {
      if operation != Operation.send { core.kernel.cancel(token(operation, number), on: fetch.descriptor) }
    } else if fetches.removeValue(forKey: number) != nil {
      core.kernel.close(fetch.descriptor)
    }
  }
}
