import Glibc
import Testing

@testable import Reactor

/// What the ring makes of sends that need not be reported at once.
@Suite struct UringKernelSendTests {
  /// A send takes 64 buffers. When more wait, its full success is no reason to sleep: the rest would lie there until
  /// something else wakes the core.
  @Test(.enabled(if: (try? UringKernel(core: BufferPool(count: 8, size: 64))) != nil))
  func queueLongerThanOneSendIsReportedAtOnce() throws {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    defer { for end in ends { close(end) } }
    let kernel = try UringKernel(core: BufferPool(count: 256, size: 64))
    var queue = BufferQueue()
    for buffer in 0..<70 as Range<UInt16> {
      kernel.buffers.held += 1
      queue.append(buffer, length: 64, in: kernel.buffers)
    }
    let token = Token(owner: 1, operation: 2, handle: Handle(slot: 0, generation: 1))
    kernel.send(ends[0], queue, prompt: false, token)
    let deadline = kernel.now + .seconds(5)
    kernel.turn(until: deadline)
    #expect(kernel.now < deadline)
    #expect(kernel.completions.count == 1)
    #expect(kernel.completions[0].result == 64 * 64)
    queue.removeAll(kernel)
  }
}
