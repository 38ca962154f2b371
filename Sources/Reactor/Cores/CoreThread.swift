internal import CUring
internal import Glibc

/// A thread that builds and runs one core. Signals stay with the thread that started it.
@safe public final class CoreThread: @unchecked Sendable {
  private let body: @Sendable () -> Void
  private let name: String
  private let processor: Int32?
  private var thread = pthread_t()

  /// Starts the thread.
  ///
  /// - Parameters:
  ///   - name: shown by `ps -L` and `top -H`, at most 15 characters.
  ///   - processor: the only processor the thread may run on; nil leaves it to the scheduler.
  ///   - body: builds the core, since a ring belongs to the thread that made it, and runs it.
  /// - Throws: `EAGAIN` when the process may have no more threads.
  public init(name: String, processor: Int32?, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    self.name = name
    self.processor = processor
    self.body = body
    let own = unsafe Unmanaged.passRetained(self)
    let code = unsafe pthread_create(
      &thread, nil,
      { raw in
        guard let raw = unsafe raw else { return nil }
        unsafe Unmanaged<CoreThread>.fromOpaque(raw).takeRetainedValue().main()
        return nil
      }, own.toOpaque())
    guard code == 0 else {
      unsafe own.release()
      throw SystemError(code: code)
    }
  }

  private func main() {
    _ = unsafe name.withCString { unsafe rw_thread_name($0) }
    if let processor { _ = rw_set_cpu(processor) }
    body()
  }

  /// Waits until the body has returned. Once only.
  public func join() { _ = pthread_join(thread, nil) }
}

/// The signals that a server handles, taken away from every thread that is started later.
public enum Signals {
  /// What arrived.
  public enum Kind: Sendable {
    /// SIGTERM or SIGINT: be done soon.
    case end
    /// SIGHUP: read anew what can be read anew.
    case reload
  }

  /// Blocks TERM, INT and HUP for the calling thread and those it starts, ignores PIPE, and gives a descriptor that
  /// becomes readable when one arrives.
  public static func descriptor() throws(SystemError) -> Int32 {
    signal(SIGPIPE, SIG_IGN)
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for number in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&set, number) }
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    let descriptor = unsafe signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC))
    guard descriptor >= 0 else { throw SystemError.last }
    return descriptor
  }

  /// The next signal that has arrived, or nil.
  public static func next(_ descriptor: Int32) -> Kind? {
    var info = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    guard unsafe read(descriptor, &info, size) == size else { return nil }
    return info.ssi_signo == UInt32(SIGHUP) ? .reload : .end
  }
}
