internal import Reactor

/// The pipes of one core that are not in use. A direction holds one only while bytes are in it, so a few serve many.
struct PipePool: ~Copyable {
  private var free: [Pipe] = []
  /// Pipes made and not yet closed.
  private(set) var made = 0

  /// An empty pipe; nil when the cap or the descriptors are used up, and the direction then copies.
  mutating func borrow(_ kernel: Kernel) -> Pipe? {
    if let pipe = free.popLast() { return pipe }
    guard made < Limits.pipesACore, let pipe = kernel.makePipe(capacity: Limits.pipeCapacity) else {
      return nil
    }
    guard pipe.capacity >= Limits.pipeCapacityLeast else {
      // Past pipe-user-pages-soft the kernel hands out tiny pipes, through which splicing costs more than copying.
      kernel.closePipe(pipe)
      return nil
    }
    made += 1
    return pipe
  }

  /// Takes a pipe back; one with bytes in it is closed, because the next user would send them to a stranger.
  mutating func giveBack(_ pipe: Pipe, empty: Bool, _ kernel: Kernel) {
    if empty, free.count < Limits.idlePipesACore {
      free.append(pipe)
    } else {
      kernel.closePipe(pipe)
      made -= 1
    }
  }

  /// Closes the pipes that nobody uses.
  mutating func closeAll(_ kernel: Kernel) {
    for pipe in free { kernel.closePipe(pipe) }
    made -= free.count
    free.removeAll()
  }
}
