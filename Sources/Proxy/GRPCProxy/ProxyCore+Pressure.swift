internal import Reactor

/// When many bytes wait, who holds them: a client that does not read what it asked for must not use up what
/// there is for all.
extension ProxyCore {
  /// Between two looks at all calls.
  private static let weighingPause = Instant.Span.milliseconds(100)

  /// Finds the clients that hold too much. Costs nothing until the core holds more than one client may.
  func relievePressure() {
    guard pool.bytesInUse > Limits.bufferedBytesAClient, now - weighed >= Self.weighingPause else { return }
    weighed = now
    var held: [Handle: Int] = [:]
    calls.forEach { _, call in
      if call.heldBytes > 0 { held[call.client, default: 0] += call.heldBytes }
    }
    clients.forEach { handle, connection in
      let bytes = held[handle] ?? 0
      connection.isHoarding = bytes > Limits.bufferedBytesAClient
      guard bytes > Limits.bufferedBytesAClientAtMost, connection.phase == .http2 else { return }
      log.warn(
        "ended a client that does not read its answers", .int("bytes", Int64(bytes)),
        .string("client", kernel.peerAddress(connection.transport.descriptor)?.description ?? "unknown"))
      connection.transport.http2.goAway(.enhanceYourCalm, "answers are not read", final: true)
      connection.phase = .closing
      abandonCalls(&connection, handle)
      touch(&connection, handle)
    }
  }
}
