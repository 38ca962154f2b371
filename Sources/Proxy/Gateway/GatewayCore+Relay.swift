internal import Glibc
internal import Reactor

/// Moving bytes: events to the pumps, and the pumps' actions to the kernel.
extension GatewayCore {
  /// An operation of the relay completed.
  func relayCompleted(
    _ session: inout Session, _ handle: Handle, _ completion: Completion, _ direction: Direction
  ) {
    switch direction {
    case .up:
      session.up.isReturnClosed = session.down.outcome == .ended
      if !session.isAnswered { noteFirstBytes(session, completion) }
      pumpCompleted(&session.up, handle, completion, from: session.client)
    case .down:
      session.down.isReturnClosed = session.up.outcome == .ended
      pumpCompleted(&session.down, handle, completion, from: session.endpoint)
    }
    noteTraffic(&session, completion, direction)
  }

  private func pumpCompleted(
    _ pump: inout Pump, _ handle: Handle, _ completion: Completion, from source: Int32
  ) {
    switch completion.token.operation & ~1 {
    case Operation.receive:
      if completion.result > 0, completion.buffer != BufferPool.none {
        pump.received(completion.buffer, length: Int(completion.result), kernel)
      } else if completion.buffer != BufferPool.none {
        kernel.release(completion.buffer)
      }
      if !completion.more { receiveEnded(&pump, handle, completion.result, source) }
    case Operation.send: pump.sent(completion.result, kernel)
    case Operation.pollSource: pump.sourceReadable()
    default: pump.destinationWritable()
    }
  }

  /// Before the endpoint's first answer: what the client sends is kept, and tells which protocol it speaks.
  private func noteFirstBytes(_ session: borrowing Session, _ completion: Completion) {
    guard completion.buffer != BufferPool.none, completion.result > 0 else { return }
    let received = unsafe kernel.buffers.received(completion.buffer, Int(completion.result))
    if shared.board.spokenProtocol == .unknown {
      let spoken = unsafe Greeting.spoken(received.bytes)
      if spoken != .unknown { shared.board.learn(spoken) }
    }
    unsafe session.setup?.replay?.take(received.bytes)
  }

  private func receiveEnded(_ pump: inout Pump, _ handle: Handle, _ result: Int32, _ source: Int32) {
    // The kernel may end a multishot receive together with bytes; it only means that it has to be armed again.
    pump.receiveEnded(result > 0 ? -EAGAIN : result == 0 ? end(of: pump, source) : result)
    if pump.isStarved { starved.append(handle) }
  }

  /// Keeps the account that health checks, idle timeouts and drain go by.
  private func noteTraffic(_ session: inout Session, _ completion: Completion, _ direction: Direction) {
    guard completion.result > 0, session.slot >= 0 else { return }
    let slot = Int(session.slot)
    switch completion.token.operation & ~1 {
    case Operation.receive where direction == .down, Operation.pollSource where direction == .down:
      shared.board.heard(core: index, slot: slot, at: now)
      session.awaitsAnswer = false
      if !session.isAnswered {
        session.isAnswered = true
        forgetSetup(&session)
      }
    case Operation.send where direction == .up, Operation.pollSource where direction == .up:
      shared.board.asked(core: index, slot: slot, at: now)
      session.awaitsAnswer = true
    default: break
    }
    session.lastActive = now
  }

  /// Runs both directions until only an event can help.
  func drive(_ session: inout Session, _ handle: Handle) {
    if session.phase == .connecting { return hold(&session, handle) }
    guard session.phase == .relaying || session.phase == .ending else { return }
    if session.isLeaving { return leave(&session, handle) }
    // Before the end of a stream without a byte is passed on to the client.
    if session.down.isSourceOver, isRecent(session), canMove(session) {
      move(&session, handle)
      if session.phase != .ending { return }
    }
    session.up.isReturnClosed = session.down.outcome == .ended
    if case .destinationBroke(let code) = session.down.outcome { session.up.sourceFailed(elsewhere: code) }
    drive(&session.up, handle, .up, from: session.client, to: session.endpoint)
    session.down.isReturnClosed = session.up.outcome == .ended
    if case .destinationBroke(let code) = session.up.outcome { session.down.sourceFailed(elsewhere: code) }
    drive(&session.down, handle, .down, from: session.endpoint, to: session.client)
    count(&session)
    if session.phase == .relaying { noticeEnd(&session, handle) }
  }

  /// Takes the session away from an endpoint that hangs, or ends it if it is too late for that.
  private func leave(_ session: inout Session, _ handle: Handle) {
    drive(&session.down, handle, .down, from: session.endpoint, to: session.client)
    guard !session.down.isInFlight, !session.up.isSending else { return }
    session.isLeaving = false
    if canMove(session) { move(&session, handle) } else { end(&session, handle, .endpointHung) }
    if session.phase == .ending { drive(&session, handle) }
  }

  /// The session looks for another endpoint while its client goes on sending.
  private func hold(_ session: inout Session, _ handle: Handle) {
    while true {
      switch session.up.hold() {
      case .backUp: session.up.backUp(kernel)
      case .cancelReceive: kernel.cancel(token(Operation.receive, handle), on: session.client)
      default: return
      }
    }
  }

  private func count(_ session: inout Session) {
    guard session.slot >= 0 else { return }
    let slot = Int(session.slot)
    let up = session.up.moved - session.counted.up
    let down = session.down.moved - session.counted.down
    if up > 0 { shared.board.add(up, core: index, slot: slot, .bytesUp) }
    if down > 0 { shared.board.add(down, core: index, slot: slot, .bytesDown) }
    session.counted = (session.up.moved, session.down.moved)
  }

  /// Runs one direction until only an event can help.
  func drive(
    _ pump: inout Pump, _ handle: Handle, _ direction: Direction, from source: Int32, to destination: Int32
  ) {
    let bit = direction.rawValue
    while true {
      switch pump.next() {
      case .none: return
      case .receive: kernel.receive(source, token(Operation.receive | bit, handle))
      case .cancelReceive: kernel.cancel(token(Operation.receive | bit, handle), on: source)
      case .cancelPollSource: kernel.cancel(token(Operation.pollSource | bit, handle), on: source)
      case .cancelPollDestination:
        kernel.cancel(token(Operation.pollDestination | bit, handle), on: destination)
      case .backUp: pump.backUp(kernel)
      case .sendBacklog:
        unsafe kernel.send(
          destination, pump.backlog.bytes, prompt: true, token(Operation.send | bit, handle))
      case .sendQueue:
        kernel.send(
          destination, pump.queue, prompt: pump.needsPromptSend, token(Operation.send | bit, handle))
      case .fill: fill(&pump, source)
      case .drain: drain(&pump, destination)
      case .returnPipe: returnPipe(&pump)
      case .pollSource: kernel.poll(source, for: .readable, token(Operation.pollSource | bit, handle))
      case .pollDestination:
        kernel.poll(destination, for: .writable, token(Operation.pollDestination | bit, handle))
      case .halfClose: kernel.halfClose(destination)
      }
    }
  }

  private func fill(_ pump: inout Pump, _ source: Int32) {
    if pump.pipe == nil { pump.lend(pipes.borrow(kernel)) }
    guard let pipe = pump.pipe else { return }
    let moved = kernel.splice(from: source, to: pipe.writeEnd, count: Int(pipe.capacity))
    pump.filled(moved == 0 ? Int(end(of: pump, source)) : moved)
  }

  /// 0 when the source's end of stream is one, else the errno of the reset that it stands for.
  private func end(of pump: borrowing Pump, _ source: Int32) -> Int32 {
    !pump.isReturnClosed && kernel.isReset(source) ? -ECONNRESET : 0
  }

  private func drain(_ pump: inout Pump, _ destination: Int32) {
    guard let pipe = pump.pipe else { return }
    pump.drained(kernel.splice(from: pipe.readEnd, to: destination, count: pump.piped), kernel)
  }

  func returnPipe(_ pump: inout Pump) {
    guard let (pipe, empty) = pump.takePipe() else { return }
    pipes.giveBack(pipe, empty: empty, kernel)
  }
}
