internal import Glibc
internal import Reactor

/// Serves `/metrics` and `/health` over HTTP/1.1 on the control thread.
final class AdminServer {
  private enum Operation {
    static let accept: UInt8 = 0
    static let read: UInt8 = 1
    static let send: UInt8 = 2
    static let write: UInt8 = 3
    static let timer: UInt8 = 4
  }

  private enum Bound {
    static let connections = 64
    static let silence = Instant.Span.seconds(15)
    static let readAtOnce = 4096
  }

  /// One client of the page.
  private struct Visitor: ~Copyable {
    let descriptor: Int32
    var parser = RequestParser()
    var received: [UInt8] = []
    var reply: [UInt8] = []
    var sent = 0
    var keepsAlive = true
    /// The operation that is under way; exactly one is, at all times.
    var operation = Operation.read
    var timer = TimerWheel.Timer.none
    var isEnding = false
  }

  private unowned let core: Core
  private let owner: UInt8
  private let listener: Int32
  private let visitors: Slab<Visitor>
  private let page: (RequestHead) -> Page

  /// An answer to a request.
  struct Page {
    var status: Int
    var contentType: String
    var headers: [(String, String)] = []
    var body: [UInt8]
  }

  /// - Parameter page: makes the answer to a request; runs on the control thread.
  init(core: Core, owner: UInt8, listener: Int32, page: @escaping (RequestHead) -> Page) throws(SystemError) {
    self.core = core
    self.owner = owner
    self.listener = listener
    self.page = page
    visitors = try Slab(capacity: Bound.connections)
    accept()
  }

  private func token(_ operation: UInt8, _ handle: Handle = Handle(slot: 0, generation: 0)) -> Token {
    Token(owner: owner, operation: operation, handle: handle)
  }

  private func accept() { core.kernel.accept(listener, token(Operation.accept)) }

  func complete(_ completion: Completion) {
    if completion.token.operation == Operation.accept {
      if completion.result >= 0 { welcome(completion.result) }
      guard !completion.more else { return }
      // Out of descriptors, most likely: the page can wait, clients of the gateway come first.
      return completion.result >= 0 ? accept() : pause()
    }
    let handle = completion.token.handle
    let isOver = visitors.edit(handle) { visitor in
      step(&visitor, handle, completion)
      return visitor.isEnding
    }
    if isOver == true { remove(handle) }
  }

  func expire(_ token: Token) {
    guard token.operation == Operation.timer else { return accept() }
    _ = visitors.edit(token.handle) { visitor in
      // A send ends by itself at once; what may take for ever is waiting.
      let isSending = visitor.operation == Operation.send
      visitor.timer = isSending ? core.timers.schedule(at: core.now + .seconds(1), token) : .none
      core.kernel.cancel(self.token(visitor.operation, token.handle), on: visitor.descriptor)
    }
  }

  private func pause() { _ = core.timers.schedule(at: core.now + .seconds(1), token(Operation.accept)) }

  private func welcome(_ descriptor: Int32) {
    guard let handle = visitors.insert(Visitor(descriptor: descriptor)) else {
      return core.kernel.reset(descriptor)
    }
    _ = visitors.edit(handle) { visitor in awaitRequest(&visitor, handle) }
  }

  private func awaitRequest(_ visitor: inout Visitor, _ handle: Handle) {
    core.timers.cancel(visitor.timer)
    visitor.timer = core.timers.schedule(at: core.now + Bound.silence, token(Operation.timer, handle))
    visitor.operation = Operation.read
    core.kernel.poll(visitor.descriptor, for: .readable, token(Operation.read, handle))
  }

  private func step(_ visitor: inout Visitor, _ handle: Handle, _ completion: Completion) {
    guard completion.result >= 0 || completion.result == -EAGAIN else {
      visitor.isEnding = true
      return
    }
    switch completion.token.operation {
    case Operation.read: read(&visitor, handle)
    case Operation.send: sent(&visitor, handle, completion.result)
    default: send(&visitor, handle)
    }
  }

  private func read(_ visitor: inout Visitor, _ handle: Handle) {
    var room = [UInt8](repeating: 0, count: Bound.readAtOnce)
    let descriptor = visitor.descriptor
    let count = unsafe room.withUnsafeMutableBytes { unsafe core.kernel.read(descriptor, into: $0) }
    if count == -Int(EAGAIN) { return awaitRequest(&visitor, handle) }
    guard count > 0 else {
      visitor.isEnding = true
      return
    }
    visitor.received.append(contentsOf: room[..<count])
    parse(&visitor, handle)
  }

  private func parse(_ visitor: inout Visitor, _ handle: Handle) {
    let received = visitor.received
    switch unsafe visitor.parser.parse(received.span.bytes) {
    case .needMore: awaitRequest(&visitor, handle)
    case .error(let status):
      visitor.keepsAlive = false
      ResponseWriter().append(status: status, contentType: "text/plain; charset=utf-8", to: &visitor.reply)
      send(&visitor, handle)
    case .request(let head, let length):
      visitor.received.removeFirst(length)
      visitor.parser = RequestParser()
      let writer = ResponseWriter(for: head)
      visitor.keepsAlive = writer.keepsAlive
      let page = page(head)
      writer.append(
        status: page.status, contentType: page.contentType, headers: page.headers, date: Int64(time(nil)),
        body: page.body, to: &visitor.reply)
      send(&visitor, handle)
    }
  }

  private func send(_ visitor: inout Visitor, _ handle: Handle) {
    visitor.operation = Operation.send
    unsafe visitor.reply.withUnsafeBytes { bytes in
      unsafe core.kernel.send(
        visitor.descriptor, .init(rebasing: bytes[visitor.sent...]), prompt: true,
        token(Operation.send, handle))
    }
  }

  private func sent(_ visitor: inout Visitor, _ handle: Handle, _ result: Int32) {
    visitor.sent += Int(max(0, result))
    if visitor.sent < visitor.reply.count {
      visitor.operation = Operation.write
      core.kernel.poll(visitor.descriptor, for: .writable, token(Operation.write, handle))
    } else if visitor.keepsAlive {
      visitor.reply.removeAll()
      visitor.sent = 0
      // A next request may have come along with the last one.
      if visitor.received.isEmpty { awaitRequest(&visitor, handle) } else { parse(&visitor, handle) }
    } else {
      visitor.isEnding = true
    }
  }

  private func remove(_ handle: Handle) {
    guard let visitor = visitors.remove(handle) else { return }
    core.timers.cancel(visitor.timer)
    core.kernel.close(visitor.descriptor)
  }
}
