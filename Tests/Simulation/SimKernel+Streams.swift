import Glibc
import Reactor

/// Receiving and accepting, which go on by themselves, and the calls that return at once.
extension SimKernel {
  func acceptReady(_ descriptor: Int32, _ token: Token) {
    guard let listener = network.listener(descriptor) else { return }
    while !listener.queue.isEmpty {
      let result = acceptOne(listener)
      if result >= 0 {
        add(Completion(token: token, result: result, more: true))
        if network.random.chance(100) { return note(descriptor) }
      } else {
        reads[descriptor] = nil
        return add(Completion(token: token, result: result))
      }
    }
  }

  func receiveReady(_ descriptor: Int32, _ token: Token) {
    guard let socket = network.socket(descriptor) else { return }
    // A few buffers at a time; what is left comes in a later pass.
    var passes = 1 + network.random.below(32)
    while socket.isReadable {
      guard passes > 0 else { return note(descriptor) }
      passes -= 1
      if network.random.chance(faults.mild) {
        return endReceive(descriptor, token, -network.random.pick(SimFaults.mildOfReceive))
      }
      if network.random.chance(faults.fatal) {
        return endReceive(descriptor, token, Int32(breakStream(socket, sending: false)))
      }
      guard let buffer = free.first else { return endReceive(descriptor, token, -ENOBUFS) }
      let memory = buffers.memory(buffer)
      let limit = network.random.chance(faults.mild) ? 1 + network.random.below(memory.count) : memory.count
      let count = socket.receive(into: UnsafeMutableRawBufferPointer(rebasing: memory[..<limit]))
      guard count > 0 else { return endReceive(descriptor, token, Int32(count)) }
      free.removeFirst()
      buffers.held += 1
      // The kernel may end the operation together with bytes.
      let ends = network.random.chance(faults.mild)
      if ends { reads[descriptor] = nil }
      add(Completion(token: token, result: Int32(count), more: !ends, buffer: buffer))
      if ends { return }
    }
  }

  private func endReceive(_ descriptor: Int32, _ token: Token, _ result: Int32) {
    if result == -ENOBUFS { calls.starvations += 1 }
    reads[descriptor] = nil
    add(Completion(token: token, result: result))
  }

  // MARK: What is left

  /// Operations that have not ended.
  package var operationsLeft: Int { reads.count + writes.count + requests.count }
}
