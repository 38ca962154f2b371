import CUring
import Glibc
import Reactor
import Testing

/// The same operations with the same completions on both backends, over real sockets.
@Suite struct KernelTests {
  static let listen = token(1)
  static let connect = token(2)
  static let receive = token(3)
  static let send = token(4)
  static let poll = token(5)

  static func token(_ operation: UInt8) -> Token {
    Token(owner: 1, operation: operation, handle: Handle(slot: 7, generation: 1))
  }

  @Test(arguments: IOBackend.allCases) func connectsAcceptsAndMovesBytesBothWays(_ backend: IOBackend) throws
  {
    let bench = try Bench(backend)
    bench.kernel.receive(bench.server, Self.receive)
    bench.sendBytes(Array("question".utf8))
    #expect(bench.next(Self.send).result == 8)
    #expect(bench.text(of: bench.next(Self.receive)) == "question")
    bench.kernel.halfClose(bench.client)
    let end = bench.next(Self.receive)
    #expect(end.result == 0 && !end.more)
    #expect(bench.kernel.buffers.held == 0)
  }

  @Test(arguments: IOBackend.allCases) func aFullSocketTakesPartAndTellsWhenThereIsRoom(_ backend: IOBackend)
    throws
  {
    let bench = try Bench(backend)
    let much = [UInt8](repeating: 1, count: 32 << 20)
    bench.sendBytes(much)
    let short = bench.next(Self.send).result
    #expect(short > 0 && short < much.count)
    bench.sendBytes(much)
    #expect(bench.next(Self.send).result == -EAGAIN)
    bench.kernel.poll(bench.client, for: .writable, Self.poll)
    bench.kernel.turn(until: bench.kernel.now)
    #expect(bench.take(Self.poll) == nil)
    #expect(bench.drain(bench.server, Int(short)) >= short)
    #expect(bench.next(Self.poll).result & Readiness.writable.rawValue != 0)
  }

  @Test(arguments: IOBackend.allCases) func gatheredSendsKeepTheOrderOfManyBuffers(_ backend: IOBackend)
    throws
  {
    let bench = try Bench(backend, buffers: 64, size: 16)
    bench.kernel.receive(bench.server, Self.receive)
    let sent = (0..<500).map { UInt8(truncatingIfNeeded: $0) }
    bench.sendBytes(sent)
    #expect(bench.next(Self.send).result == 500)
    var queue = BufferQueue()
    var completions: [Completion] = []
    while queue.byteCount < sent.count {
      let completion = bench.next(Self.receive)
      completions.append(completion)
      queue.append(completion.buffer, length: Int(completion.result), in: bench.kernel.buffers)
    }
    #expect(queue.count > 16)
    // Back the other way as one gathered send.
    bench.kernel.send(bench.server, queue, prompt: true, Self.send)
    #expect(bench.next(Self.send).result == 500)
    var room = [UInt8](repeating: 0, count: 1000)
    #expect(room.withUnsafeMutableBytes { bench.kernel.read(bench.client, into: $0) } == 500)
    #expect(Array(room[..<500]) == sent)
    queue.consume(7, bench.kernel)
    queue.removeAll(bench.kernel)
    #expect(bench.kernel.buffers.held == 0)
  }

  @Test(arguments: IOBackend.allCases) func aReceiveWithoutBuffersEndsAndGoesOnOnceThereAreSome(
    _ backend: IOBackend
  ) throws {
    let bench = try Bench(backend, buffers: 4, size: 16)
    bench.kernel.receive(bench.server, Self.receive)
    bench.sendBytes([UInt8](repeating: 3, count: 100))
    var queue = BufferQueue()
    var ended: Completion?
    while ended == nil {
      let completion = bench.next(Self.receive)
      if completion.more {
        queue.append(completion.buffer, length: Int(completion.result), in: bench.kernel.buffers)
      } else {
        ended = completion
      }
    }
    #expect(ended?.result == -ENOBUFS && queue.byteCount == 64)
    queue.removeAll(bench.kernel)
    bench.kernel.receive(bench.server, Self.receive)
    #expect(bench.next(Self.receive).result == 16)
  }

  @Test(arguments: IOBackend.allCases) func cancelledOperationsEndWithTheirOwnCompletion(_ backend: IOBackend)
    throws
  {
    let bench = try Bench(backend)
    bench.kernel.receive(bench.server, Self.receive)
    bench.kernel.poll(bench.client, for: .readable, Self.poll)
    bench.kernel.turn(until: bench.kernel.now)
    bench.kernel.cancel(Self.receive, on: bench.server)
    bench.kernel.cancel(Self.poll, on: bench.client)
    #expect(bench.next(Self.receive).result == -ECANCELED)
    #expect(bench.next(Self.poll).result == -ECANCELED)
    // Nothing there to cancel: nothing comes of it.
    bench.kernel.cancel(Self.receive, on: bench.server)
    bench.kernel.turn(until: bench.kernel.now)
    #expect(bench.take(Self.receive) == nil)
  }

  @Test(arguments: IOBackend.allCases) func aResetEndsTheReceiveWithItsError(_ backend: IOBackend) throws {
    let bench = try Bench(backend)
    bench.kernel.receive(bench.server, Self.receive)
    bench.kernel.turn(until: bench.kernel.now)
    bench.kernel.reset(bench.client)
    bench.client = -1
    #expect(bench.next(Self.receive).result == -ECONNRESET)
  }

  @Test(arguments: IOBackend.allCases) func aRefusedConnectCompletesWithTheRefusal(_ backend: IOBackend)
    throws
  {
    let bench = try Bench(backend)
    let closed = try #require(Address(ip: "127.0.0.1", port: 1))
    let socket = bench.kernel.socket(family: AF_INET)
    bench.kernel.connect(socket, to: closed, Self.connect)
    #expect(bench.next(Self.connect).result == -ECONNREFUSED)
    bench.kernel.close(socket)
  }

  @Test(arguments: IOBackend.allCases) func spliceMovesBytesThroughAPipe(_ backend: IOBackend) throws {
    let bench = try Bench(backend)
    let pipe = try #require(bench.kernel.makePipe(capacity: 64 << 10))
    defer { bench.kernel.closePipe(pipe) }
    #expect(bench.kernel.splice(from: bench.server, to: pipe.writeEnd, count: 4096) == -Int(EAGAIN))
    bench.sendBytes(Array("through a pipe".utf8))
    #expect(bench.next(Self.send).result == 14)
    #expect(bench.kernel.splice(from: bench.server, to: pipe.writeEnd, count: 4096) == 14)
    #expect(bench.kernel.splice(from: pipe.readEnd, to: bench.server, count: 14) == 14)
    var room = [UInt8](repeating: 0, count: 64)
    #expect(room.withUnsafeMutableBytes { bench.kernel.read(bench.client, into: $0) } == 14)
    bench.kernel.halfClose(bench.client)
    #expect(bench.kernel.splice(from: bench.server, to: pipe.writeEnd, count: 4096) == 0)
  }

  @Test(arguments: IOBackend.allCases) func moreOperationsThanTheQueuesHoldAreAllCarriedOut(
    _ backend: IOBackend
  ) throws {
    let bench = try Bench(backend)
    let byte: [UInt8] = [9]
    let rounds = 5000
    byte.withUnsafeBytes { bytes in
      for _ in 0..<rounds { bench.kernel.send(bench.client, bytes, prompt: true, Self.send) }
      var sent = 0
      while sent < rounds {
        #expect(bench.next(Self.send).result == 1)
        sent += 1
      }
    }
    #expect(bench.drain(bench.server, rounds) == rounds)
  }

  @Test(arguments: IOBackend.allCases) func anotherThreadWakesASleepingKernel(_ backend: IOBackend) throws {
    let bench = try Bench(backend)
    nonisolated(unsafe) let kernel = bench.kernel
    let thread = try CoreThread(name: "waker", processor: nil) { kernel.wake(from: nil) }
    #expect(bench.next(.wake).token == .wake)
    thread.join()
    // And again: the bell must be re-armed.
    let second = try CoreThread(name: "waker", processor: nil) { kernel.wake(from: nil) }
    #expect(bench.next(.wake).token == .wake)
    second.join()
  }

  @Test func ringsWakeEachOtherByMessage() throws {
    let bench = try Bench(.uring)
    let other = try IOBackend.uring.makeKernel(buffers: BufferPool(count: 8, size: 64))
    bench.kernel.wake(from: other)
    other.turn(until: other.now)
    #expect(bench.next(.wake).token == .wake)
  }

  @Test func aSendThatIsNotPromptIsReportedWithWhateverWakesTheCoreNext() throws {
    let bench = try Bench(.uring)
    let bytes: [UInt8] = [1, 2, 3]
    bytes.withUnsafeBytes { bench.kernel.send(bench.client, $0, prompt: false, Self.send) }
    bench.kernel.receive(bench.server, Self.receive)
    #expect(bench.next(Self.receive).result == 3)
    #expect(bench.next(Self.send).result == 3)
  }
}

/// A connected pair of sockets on a fresh kernel.
private final class Bench {
  let kernel: Kernel
  var client: Int32
  var server: Int32 = -1
  private let listener: Int32
  private var waiting: [Completion] = []
  private var outgoing: [UInt8] = []

  init(_ backend: IOBackend, buffers: Int = 64, size: Int = 4096) throws {
    kernel = try backend.makeKernel(buffers: BufferPool(count: buffers, size: size))
    let any = try #require(Address(ip: "127.0.0.1", port: 0))
    listener = try ListeningSocket.make(
      any, cores: 1, backlog: 16, inherited: .init(keepalive: .zero, userTimeout: .zero))[0]
    let address = try #require(Sockets.address(listener))
    client = kernel.socket(family: AF_INET)
    kernel.accept(listener, KernelTests.listen)
    kernel.connect(client, to: address, KernelTests.connect)
    #expect(next(KernelTests.connect).result == 0)
    let accepted = next(KernelTests.listen)
    #expect(accepted.more)
    server = accepted.result
    kernel.setOption(client, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  deinit {
    if client >= 0 { kernel.close(client) }
    kernel.close(server)
    kernel.close(listener)
  }

  func sendBytes(_ bytes: [UInt8]) {
    outgoing = bytes
    outgoing.withUnsafeBytes { kernel.send(client, $0, prompt: true, KernelTests.send) }
  }

  /// The oldest completion of the operation, if one has come.
  func take(_ token: Token) -> Completion? {
    for index in 0..<kernel.completions.count { waiting.append(kernel.completions[index]) }
    guard let index = waiting.firstIndex(where: { $0.token == token }) else { return nil }
    return waiting.remove(at: index)
  }

  /// Turns until the operation completes; ten seconds at most.
  func next(_ token: Token) -> Completion {
    let limit = kernel.now + .seconds(10)
    while kernel.now < limit {
      if let index = waiting.firstIndex(where: { $0.token == token }) { return waiting.remove(at: index) }
      kernel.turn(until: limit)
      for index in 0..<kernel.completions.count { waiting.append(kernel.completions[index]) }
    }
    Issue.record("no completion of \(token)")
    return Completion(token: token, result: -ETIMEDOUT)
  }

  /// Reads until `count` bytes have come; ten seconds at most.
  func drain(_ descriptor: Int32, _ count: Int) -> Int {
    var room = [UInt8](repeating: 0, count: 1 << 20)
    var got = 0
    let limit = kernel.now + .seconds(10)
    while got < count, kernel.now < limit {
      let read = room.withUnsafeMutableBytes { kernel.read(descriptor, into: $0) }
      if read > 0 { got += read } else { sched_yield() }
    }
    return got
  }

  func text(of completion: Completion) -> String {
    var queue = BufferQueue()
    queue.append(completion.buffer, length: Int(completion.result), in: kernel.buffers)
    let text = String(decoding: kernel.buffers.bytes(completion.buffer), as: UTF8.self)
    queue.removeAll(kernel)
    return text
  }
}
