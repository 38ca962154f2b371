internal import Glibc

/// Which kernel interface the cores use.
public enum IOBackend: String, Sendable, CaseIterable {
  /// One ring a core; Linux 6.1 or newer.
  case uring = "io_uring"
  /// Readiness and plain system calls, for kernels and containers that refuse io_uring.
  case epoll

  /// Makes the interface for the calling thread's core.
  ///
  /// - Throws: the errno with which the kernel refused.
  public func makeKernel(buffers: BufferPool) throws(SystemError) -> Kernel {
    switch self {
    case .uring: try UringKernel(core: buffers)
    case .epoll: try EpollKernel(core: buffers)
    }
  }

  /// Sets a small ring up and takes it down again.
  ///
  /// - Returns: the features in use, or why there is no io_uring here, in words for the log.
  public static func probeUring() -> Result<[String], Refusal> {
    do throws(SystemError) {
      return .success(try UringKernel(core: BufferPool(count: 8, size: 64)).features)
    } catch {
      return .failure(Refusal(error: error))
    }
  }

  /// Why the kernel gave no ring.
  public struct Refusal: Error, Sendable, CustomStringConvertible {
    /// The errno of `io_uring_setup` or of a registration.
    public let error: SystemError

    /// Explains an errno that `makeKernel` threw.
    public init(error: SystemError) { self.error = error }

    /// The cause, and what could be done about it.
    public var description: String {
      switch error.code {
      case EPERM: permissionCause
      case ENOSYS:
        "the kernel has no io_uring, or a seccomp profile hides it (\(error)); allow io_uring_setup, "
          + "io_uring_enter and io_uring_register"
      case EINVAL: "this kernel is older than Linux 6.1, which brought what Ringway's ring needs (\(error))"
      case ENOMEM: "the locked-memory limit is too small for the ring (\(error)); raise RLIMIT_MEMLOCK"
      case EMFILE, ENFILE: "no file descriptor is left (\(error)); raise RLIMIT_NOFILE"
      default: "io_uring_setup failed: \(error)"
      }
    }

    private var permissionCause: String {
      switch Refusal.sysctl {
      case "1", "2":
        "the sysctl kernel.io_uring_disabled is \(Refusal.sysctl) (\(error)); set it to 0"
      default: "a seccomp profile or security module forbids io_uring (\(error)); allow it in the profile"
      }
    }

    private static var sysctl: String {
      let file = unsafe open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC)
      guard file >= 0 else { return "" }
      defer { close(file) }
      var byte: UInt8 = 0
      guard unsafe Glibc.read(file, &byte, 1) == 1 else { return "" }
      return String(UnicodeScalar(byte))
    }
  }
}
