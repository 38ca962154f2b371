internal import Reactor

/// Everything received that is neither header nor data.
extension HTTP2Session {
  // MARK: Streams

  mutating func takeReset(_ code: HTTP2Code) -> Step {
    guard !isIdle(frame.stream) else { return fail(.protocolError, "RST_STREAM on an idle stream") }
    guard let position = streams.find(frame.stream) else {
      _ = admitNoise()
      return .again
    }
    guard admitReset() else { return .again }
    let (id, user) = (frame.stream, streams[position].user)
    close(position)
    if role == .client, code == .refusedStream { return .event(.unprocessed(stream: id, user: user)) }
    return .event(.reset(stream: id, user: user, code))
  }

  mutating func takeWindowUpdate(_ increment: UInt32) -> Step {
    guard frame.stream != 0 else { return widenConnection(increment) }
    guard !isIdle(frame.stream) else { return fail(.protocolError, "WINDOW_UPDATE on an idle stream") }
    guard let position = streams.find(frame.stream) else { return .again }
    guard increment > 0 else { return streamError(position, .protocolError) }
    let (window, overflow) = streams[position].sendWindow.addingReportingOverflow(Int32(increment))
    guard !overflow else { return streamError(position, .flowControlError) }
    streams[position].sendWindow = window
    wake(position)
    return .again
  }

  private mutating func widenConnection(_ increment: UInt32) -> Step {
    guard increment > 0 else { return fail(.protocolError, "WINDOW_UPDATE of zero") }
    sendWindow &+= Int(increment)
    guard sendWindow <= Int(Int32.max) else { return fail(.flowControlError, "the window overflows") }
    return .again
  }

  // MARK: Settings

  mutating func takeSettingsAcknowledgement() -> Step {
    guard !settingsAcknowledged else { return fail(.protocolError, "SETTINGS were acknowledged twice") }
    settingsAcknowledged = true
    let change = unsafe Int32(context.settings.streamWindow) &- streamWindow
    streamWindow &+= change
    for position in 0..<streams.capacity where streams[position].id != 0 {
      streams[position].receiveWindow &+= change
      streams[position].receiveSize &+= change
    }
    return .again
  }

  mutating func takeSettings(_ payload: UnsafeRawBufferPointer) -> Step {
    guard admitNoise(Limits.http2SettingsNoise), admitAnswer(HTTP2FrameHeader.size) else { return .again }
    if !peerSettingsSeen { peerMaxConcurrent = .max }
    peerSettingsSeen = true
    var initialWindow = peerStreamWindow
    var offset = 0
    while offset &+ 6 <= payload.count {
      let (id, value) = unsafe (payload.number16(offset), payload.number32(offset &+ 2))
      offset &+= 6
      switch id {
      case SettingID.headerTableSize:
        guard limitTable(value) else { return .again }
      case SettingID.enablePush:
        guard value == 0 || (value == 1 && role == .server) else {
          return fail(.protocolError, "SETTINGS_ENABLE_PUSH is wrong")
        }
      case SettingID.maxConcurrentStreams: peerMaxConcurrent = value
      case SettingID.initialWindowSize:
        guard let window = Int32(exactly: value) else {
          return fail(.flowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
        }
        initialWindow = window
      case SettingID.maxFrameSize:
        // We never send a longer frame than everybody has to take.
        guard value >= 16_384, value <= 16_777_215 else {
          return fail(.protocolError, "SETTINGS_MAX_FRAME_SIZE is wrong")
        }
      default: break
      }
    }
    guard changeStreamWindows(to: initialWindow) else { return .again }
    writeFrame(FrameType.settings, FrameFlag.acknowledgement)
    return .event(.settings)
  }

  private mutating func limitTable(_ size: UInt32) -> Bool {
    switch role {
    case .server:
      if size < UInt32(HeaderEncoder.tableSize), !tableSizeTold { owesTableSize = true }
      return true
    case .client:
      if encoder.limitTable(size) { return true }
      _ = fail(.internalError, "out of memory")
      return false
    }
  }

  /// RFC 9113 section 6.9.2: the change applies to open streams, whose windows may fall below zero.
  private mutating func changeStreamWindows(to initial: Int32) -> Bool {
    let change = initial &- peerStreamWindow
    peerStreamWindow = initial
    guard change != 0 else { return true }
    for position in 0..<streams.capacity where streams[position].id != 0 {
      let (window, overflow) = streams[position].sendWindow.addingReportingOverflow(change)
      guard !overflow else {
        _ = fail(.flowControlError, "a window overflows")
        return false
      }
      streams[position].sendWindow = window
      wake(position)
    }
    return true
  }

  // MARK: Ping

  mutating func takePing(_ payload: UInt64) -> Step {
    guard admitNoise() else { return .again }
    if frame.has(FrameFlag.acknowledgement) { return .event(.pong(payload)) }
    guard role == .client || isPingWelcome() else { return fail(.enhanceYourCalm, "too_many_pings") }
    guard admitAnswer(HTTP2FrameHeader.size + 8) else { return .again }
    let isAlone = output.isEmpty || isPatient
    writePing(payload, FrameFlag.acknowledgement)
    patientBytes = isAlone ? output.count : 0
    return .again
  }

  /// The keepalive enforcement of grpc-go's server: clients are tuned to what it lets pass.
  private mutating func isPingWelcome() -> Bool {
    let settings = unsafe context.settings
    let previous = lastPing
    lastPing = clock
    if strikesForgiven {
      strikesForgiven = false
      pingStrikes = 0
      return true
    }
    let isIdle = streams.count == 0 && !settings.pingsWithoutStream
    let apart = isIdle ? Instant.Span.seconds(2 * 60 * 60) : settings.pingMinimum
    if let previous, previous + apart > clock { pingStrikes &+= 1 }
    return pingStrikes <= Limits.http2PingStrikes
  }

  // MARK: Going away

  /// Streams that the peer has not acted on, found in the table one by one.
  struct Sweep {
    var position = 0
    /// The table as the sweep left it; streams move when somebody else changes it, or it shrinks.
    var version: UInt32
    var capacity = 0
  }

  mutating func takeGoAway(last: UInt32, _ code: HTTP2Code) -> Step {
    guard admitNoise() else { return .again }
    guard last <= goAwayLast else { return fail(.protocolError, "GOAWAY takes back an earlier one") }
    goAwayReceived = true
    goAwayLast = last
    if role == .client { sweep = Sweep(version: streams.version) }
    return .event(.goAway(last: last, code))
  }

  mutating func nextUnprocessed() -> HTTP2Event? {
    guard var running = sweep else { return nil }
    if running.version != streams.version || running.capacity != streams.capacity { running.position = 0 }
    running.capacity = streams.capacity
    while running.position < streams.capacity {
      let stream = streams[running.position]
      if stream.id > goAwayLast {
        close(running.position)
        // What moved up may have to go as well, so the position stays.
        running.version = streams.version
        sweep = running
        return .unprocessed(stream: stream.id, user: stream.user)
      }
      running.position &+= 1
    }
    sweep = nil
    return nil
  }
}
