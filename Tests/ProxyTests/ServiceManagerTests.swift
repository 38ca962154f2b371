import Glibc
import Reactor
import Testing

@testable import Proxy

/// A manager's end: a bound unix datagram socket.
private final class NotifySocket {
  let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
  let path: String

  init(abstract: Bool) throws {
    path = (abstract ? "@" : "/tmp/") + "ringway-notify-\(getpid())-\(descriptor)"
    let address = try #require(Address(unixPath: path))
    let bound = address.withSocketAddress { bind(descriptor, $0, $1) }
    try #require(bound == 0)
  }

  deinit {
    close(descriptor)
    if path.hasPrefix("/") { unlink(path) }
  }

  /// What has arrived; nil if nothing.
  func next() -> String? {
    var room = [UInt8](repeating: 0, count: 512)
    let count = recv(descriptor, &room, room.count, Int32(MSG_DONTWAIT))
    return count < 0 ? nil : String(decoding: room[..<count], as: UTF8.self)
  }
}

@Suite struct ServiceManagerTests {
  private func manager(_ environment: [String: String]) -> ServiceManager {
    ServiceManager(process: getpid()) { environment[$0] }
  }

  @Test(arguments: [false, true]) func messages(_ abstract: Bool) throws {
    let socket = try NotifySocket(abstract: abstract)
    let manager = manager(["NOTIFY_SOCKET": socket.path])
    #expect(manager.ready() && socket.next() == "READY=1")
    #expect(manager.reloading(at: Instant(nanoseconds: 5_000_999)))
    #expect(socket.next() == "RELOADING=1\nMONOTONIC_USEC=5000")
    #expect(manager.keepAlive() && socket.next() == "WATCHDOG=1")
    #expect(manager.status("3 endpoints\nSTOPPING=1\r") && socket.next() == "STATUS=3 endpoints STOPPING=1 ")
    #expect(manager.stopping() && socket.next() == "STOPPING=1")
    #expect(socket.next() == nil)
  }

  @Test func withoutAManagerNothingHappens() {
    let long = "/" + String(repeating: "a", count: 200)
    for path in [nil, "", "relative", "vsock:2:1", "/nowhere/notify", long] {
      #expect(!manager(path.map { ["NOTIFY_SOCKET": $0] } ?? [:]).ready())
    }
    #expect(manager([:]).watchdogInterval == nil)
    #expect((try? manager([:]).inheritedListeners()) == [])
  }

  @Test func aManagerThatDoesNotReadHoldsNobodyUp() throws {
    let socket = try NotifySocket(abstract: true)
    let manager = manager(["NOTIFY_SOCKET": socket.path])
    var sent = 0
    while sent < 100_000, manager.keepAlive() { sent += 1 }
    #expect(sent < 100_000)
  }

  @Test func watchdog() {
    func interval(_ microseconds: String, _ process: String?) -> Instant.Span? {
      var environment = ["WATCHDOG_USEC": microseconds]
      environment["WATCHDOG_PID"] = process
      return manager(environment).watchdogInterval
    }
    #expect(interval("3000000", nil) == .seconds(3))
    #expect(interval("3000000", String(getpid())) == .seconds(3))
    #expect(interval("3000000", "1") == nil)
    for text in ["0", "", "-1", "3s", "99999999999999999999", "18446744073709551615"] {
      #expect(interval(text, nil) == nil, "\(text)")
    }
  }

  private func activated(_ count: String, names: String? = nil) -> ServiceManager {
    var environment = ["LISTEN_PID": String(getpid()), "LISTEN_FDS": count]
    environment["LISTEN_FDNAMES"] = names
    return manager(environment)
  }

  /// A socket at a descriptor far from where other tests get theirs.
  private func place(_ kind: __socket_type, listening: Bool, at descriptor: Int32) {
    let made = socket(AF_INET, Int32(kind.rawValue), 0)
    if listening { listen(made, 1) }
    dup2(made, descriptor)
    close(made)
  }

  @Test func listenersAreTakenOver() throws {
    let first: Int32 = 700
    for descriptor in first...(first + 2) { place(SOCK_STREAM, listening: true, at: descriptor) }
    defer { for descriptor in first...(first + 2) { close(descriptor) } }
    let listeners = try activated("3", names: "client:metrics").inheritedListeners(from: first)
    #expect(listeners.map(\.name) == ["client", "metrics", "unknown"])
    #expect(listeners.map(\.descriptor) == [first, first + 1, first + 2])
    for listener in listeners {
      #expect(fcntl(listener.descriptor, F_GETFD) & FD_CLOEXEC != 0)
      #expect(fcntl(listener.descriptor, F_GETFL) & O_NONBLOCK != 0)
    }
  }

  @Test func othersAreRefused() throws {
    let first: Int32 = 710
    place(SOCK_DGRAM, listening: false, at: first)
    place(SOCK_STREAM, listening: false, at: first + 1)
    defer { for descriptor in first...(first + 1) { close(descriptor) } }
    func cause(_ descriptor: Int32, _ count: String = "1") -> String? {
      do throws(ServiceManager.Failure) {
        _ = try activated(count, names: "client").inheritedListeners(from: descriptor)
        return nil
      } catch { return error.description }
    }
    #expect(cause(first) == "descriptor 710 (client) from the service manager is not a stream socket")
    #expect(cause(first + 1) == "descriptor 711 (client) from the service manager does not listen")
    #expect(cause(first + 2) == "descriptor 712 (client) from the service manager is not a stream socket")
    for count in ["", "-1", "1025", "99999999999", "x"] {
      #expect(cause(first, count) == "LISTEN_FDS=\(count) is not a number up to 1024")
    }
    #expect(cause(first, "0") == nil)
    // Meant for another process, such as a shell in between.
    let foreign = ServiceManager(process: getpid()) { ["LISTEN_PID": "1", "LISTEN_FDS": "1"][$0] }
    #expect(try foreign.inheritedListeners(from: first) == [])
  }
}
