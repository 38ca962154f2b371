internal import CUring
internal import Glibc
public import Reactor

/// The service manager that started this process, if it is systemd or speaks like it: sd_notify(3),
/// sd_watchdog_enabled(3) and sd_listen_fds(3), which are protocols over the environment and a socket.
///
/// Without such a manager every message is dropped and there are no listeners.
public struct ServiceManager: Sendable {
  /// A listening stream socket that the manager has opened.
  public struct Listener: Hashable, Sendable {
    /// The descriptor; non-blocking and closed on `exec`. Whoever takes it has to close it.
    public let descriptor: Int32
    /// `FileDescriptorName=` of the socket unit; `unknown` if the manager gave none.
    public let name: String
  }

  /// A descriptor that cannot be used as a listener, or a `LISTEN_FDS` that is no count.
  public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong with which descriptor.
    public let description: String
  }

  /// Listeners that are taken over at most.
  public static let mostListeners = 1024
  private static let firstDescriptor: Int32 = 3

  /// How often the manager wants to hear `keepAlive` at least (`WATCHDOG_USEC`); nil if it does not watch
  /// this process. Send twice as often.
  public let watchdogInterval: Instant.Span?
  private let address: Address?
  private let listenCount: String?
  private let listenNames: [String]

  /// Reads what the manager left in this process's environment.
  public init() {
    self.init(process: getpid()) { name in
      guard let value = unsafe getenv(name) else { return nil }
      return unsafe String(cString: value)
    }
  }

  /// - Parameters:
  ///   - process: this process's id, which `LISTEN_PID` and `WATCHDOG_PID` must name.
  ///   - variable: looks up an environment variable.
  init(process: Int32, variable: (String) -> String?) {
    // A path or an abstract name; there are also addresses on other machines, which nobody here answers to.
    address = variable("NOTIFY_SOCKET").flatMap { path in
      path.hasPrefix("/") || path.hasPrefix("@") ? Address(unixPath: path) : nil
    }
    let watched = variable("WATCHDOG_PID").map { $0 == String(process) } ?? true
    watchdogInterval = variable("WATCHDOG_USEC").flatMap(UInt64.init).flatMap { microseconds in
      let (nanoseconds, overflow) = microseconds.multipliedReportingOverflow(by: 1000)
      return watched && nanoseconds > 0 && !overflow ? Instant.Span(nanoseconds: nanoseconds) : nil
    }
    listenCount = variable("LISTEN_PID") == String(process) ? variable("LISTEN_FDS") : nil
    let names = variable("LISTEN_FDNAMES")?.split(separator: ":", omittingEmptySubsequences: false)
    listenNames = names?.map(String.init) ?? []
  }

  // MARK: Messages

  /// Startup, or a reload, is complete.
  ///
  /// - Returns: true if the manager was told, here and below. False is no reason to stop.
  @discardableResult public func ready() -> Bool { notify("READY=1") }

  /// The process is about to end.
  @discardableResult public func stopping() -> Bool { notify("STOPPING=1") }

  /// The configuration is being read again; `ready` ends it.
  ///
  /// - Parameter now: the monotonic clock, by which the manager tells a new reload from one before.
  @discardableResult public func reloading(at now: Instant) -> Bool {
    notify("RELOADING=1\nMONOTONIC_USEC=\(now.nanoseconds / 1000)")
  }

  /// The process is alive, for the manager's watchdog.
  @discardableResult public func keepAlive() -> Bool { notify("WATCHDOG=1") }

  /// One line that `systemctl status` shows. Line breaks become spaces, since behind one a message could go
  /// on.
  @discardableResult public func status(_ text: String) -> Bool {
    let line = text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : String($0) }
    return notify("STATUS=" + line.joined())
  }

  /// Sends one datagram, never waiting: a manager that does not read must not hold up the cores.
  private func notify(_ message: String) -> Bool {
    guard let address else { return false }
    let kind = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(AF_UNIX, kind, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let bytes = Array(message.utf8)
    let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
    return unsafe address.withSocketAddress { name, length in
      unsafe sendto(descriptor, bytes, bytes.count, flags, name, length)
    } == bytes.count
  }

  // MARK: Listeners

  /// The listeners that the manager opened for this process (socket activation), in its order. To be called
  /// once: a second call hands out the same descriptors.
  ///
  /// - Throws: a descriptor is no listening stream socket. None of them is closed then.
  public func inheritedListeners() throws(Failure) -> [Listener] {
    try inheritedListeners(from: Self.firstDescriptor)
  }

  /// As above, with descriptors from `first` on: in a test, 3 belongs to somebody else.
  func inheritedListeners(from first: Int32) throws(Failure) -> [Listener] {
    guard let listenCount else { return [] }
    guard let count = Int32(listenCount), (0...Int32(Self.mostListeners)).contains(count) else {
      throw Failure(description: "LISTEN_FDS=\(listenCount) is not a number up to \(Self.mostListeners)")
    }
    var listeners: [Listener] = []
    for index in 0..<count {
      let name = Int(index) < listenNames.count ? listenNames[Int(index)] : "unknown"
      listeners.append(Listener(descriptor: first + index, name: name))
    }
    for listener in listeners { try Self.prepare(listener) }
    return listeners
  }

  private static func prepare(_ listener: Listener) throws(Failure) {
    let which = "descriptor \(listener.descriptor) (\(listener.name)) from the service manager"
    guard option(SO_TYPE, of: listener.descriptor) == Int32(SOCK_STREAM.rawValue) else {
      throw Failure(description: "\(which) is not a stream socket")
    }
    guard option(SO_ACCEPTCONN, of: listener.descriptor) == 1 else {
      throw Failure(description: "\(which) does not listen")
    }
    let flags = fcntl(listener.descriptor, F_GETFL)
    guard fcntl(listener.descriptor, F_SETFD, FD_CLOEXEC) == 0, flags >= 0,
      fcntl(listener.descriptor, F_SETFL, flags | O_NONBLOCK) == 0
    else { throw Failure(description: "\(which): \(SystemError.last)") }
  }

  private static func option(_ name: Int32, of descriptor: Int32) -> Int32? {
    var value: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    return unsafe getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : nil
  }
}
