import Glibc
import Simulation

@testable import Proxy
@testable import Reactor

/// One end of a TCP connection that speaks HTTP/2 with the same machine as the proxy.
class ProxyPeer {
  unowned let world: ProxyWorld
  let socket: SimSocket
  let connection: HTTP2TestConnection
  private var isPoked = false
  private(set) var isOver = false

  init(_ world: ProxyWorld, _ role: HTTP2Role, _ socket: SimSocket, _ settings: HTTP2Settings) {
    self.world = world
    self.socket = socket
    connection = HTTP2TestConnection(role, settings)
    socket.changed = { [unowned self] in poke() }
  }

  var isStopped: Bool { false }

  var state: String {
    "peer \(isOver ? "over" : "open") socket arrived \(socket.arrived.count) fin \(socket.finArrived) dead \(socket.isDead), "
      + "streams \(connection.session.openStreams), output \(connection.session.output.count), "
      + "input \(connection.session.stage) \(connection.session.left), window \(connection.session.sendWindow)"
  }

  func poke(after delay: UInt64 = 1_000) {
    guard !isPoked, !isOver else { return }
    isPoked = true
    world.network.after(delay) { [self] in
      isPoked = false
      if !isStopped, !isOver { act() }
    }
  }

  private func act() {
    connection.now = world.network.now
    while !socket.isClosed {
      let (result, bytes) = socket.receive(1 + world.network.random.below(20_000))
      if result == -Int(EAGAIN) { break }
      guard result > 0 else { return end() }
      bytes.withUnsafeBytes { bytes in
        connection.session.receive(bytes)
        pull()
      }
    }
    guard !isOver else { return }
    work()
    write()
  }

  private func pull() {
    while let event = connection.session.next(world.network.now) { take(event) }
  }

  func write() {
    while !connection.session.output.isEmpty, !isOver {
      let count = socket.send(Array(connection.session.output.bytes.prefix(60_000)))
      if count == -Int(EAGAIN) { return }
      guard count > 0 else { return end() }
      connection.session.output.consume(count)
      connection.session.outputDrained()
      pull()
    }
  }

  func end(reset: Bool = false) {
    guard !isOver else { return }
    isOver = true
    if reset { socket.reset() } else { socket.close() }
    ended()
  }

  func take(_ event: HTTP2Event) {}
  func work() {}
  func ended() {}

  func value(_ name: String) -> String? {
    let list = connection.context.received
    for position in 0..<list.count where headerText(list[position].name) == name {
      return headerText(list[position].value)
    }
    return nil
  }
}
