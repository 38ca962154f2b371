internal import Reactor
internal import Synchronization

/// The cores of a server and their control thread, as they reach each other.
final class CoreGroup<Message: Sendable>: Sendable {
  let links: [CoreLink<Message>]
  /// The way back to the control thread.
  let control = CoreLink<Message>()
  private let cores = Atomic<Int>(0)
  private let start = Mutex(Start())

  private struct Start {
    var attached = 0
    var failure: SystemError?
    var features: [String] = []
  }

  init(cores: Int) { links = (0..<cores).map { _ in CoreLink() } }

  /// A core's ring is up, and it is about to run.
  func attach(_ core: Int, _ kernel: Kernel) {
    links[core].attach(kernel)
    start.withLock { start in
      start.attached += 1
      start.features = (kernel as? UringKernel)?.features ?? []
    }
    control.wake()
  }

  /// A core could not be built.
  func attachFailed(_ error: SystemError) {
    start.withLock { start in
      start.attached += 1
      start.failure = error
    }
    control.wake()
  }

  /// True once every core is up or has failed.
  var isStarted: Bool { start.withLock { $0.attached == links.count } }

  /// Why a core could not be built.
  var coreFailure: SystemError? { start.withLock { $0.failure } }

  /// What the kernel granted the cores' rings, in words for the log.
  var features: [String] { start.withLock { $0.features } }

  /// Cores whose threads run.
  var runningCores: Int { cores.load(ordering: .acquiring) }

  /// A core's thread starts (+1) or has returned (−1).
  func countCore(_ change: Int) { cores.add(change, ordering: .acquiringAndReleasing) }
}

/// How the control thread reaches one core.
@safe final class CoreLink<Message: Sendable>: @unchecked Sendable {
  let mailbox = Mailbox<Message>(capacity: 256)
  let doorbell = Doorbell()
  private let pongs = Atomic<UInt64>(0)
  /// Of a kernel interface only `wake` may be called from another thread, and nothing else is.
  private struct Bell: @unchecked Sendable { let kernel: Kernel }
  private let bell = Mutex<Bell?>(nil)

  /// The core is about to run: from now on it can be woken. It has to look into its mailbox once by itself, for what
  /// was sent before.
  func attach(_ kernel: Kernel) {
    let bell = Bell(kernel: kernel)
    self.bell.withLock { $0 = bell }
  }

  /// Sends a message and wakes the core if it may sleep. False when the mailbox is full, which means that the core
  /// has not turned for a long time.
  func send(_ message: Message, from own: Kernel?) -> Bool {
    guard mailbox.push(message) == nil else { return false }
    if doorbell.ring() { bell.withLock { $0 }?.kernel.wake(from: own) }
    return true
  }

  /// Something waits for the core elsewhere: wakes it if it may sleep.
  func ring(from own: Kernel?) {
    if doorbell.ring() { bell.withLock { $0 }?.kernel.wake(from: own) }
  }

  /// Wakes the core without a message.
  func wake() { bell.withLock { $0 }?.kernel.wake(from: nil) }

  /// The core answers a ping.
  func answerPing() { pongs.add(1, ordering: .relaxed) }

  /// Pings answered so far.
  var answeredPings: UInt64 { pongs.load(ordering: .relaxed) }
}
