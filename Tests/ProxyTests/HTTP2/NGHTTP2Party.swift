import CNGHTTP2
import Reactor
import Simulation

@testable import Proxy

/// nghttp2's own session as the other end.
final class NGHTTP2Party: TalkParty {
  private var session: OpaquePointer?
  private let isClient: Bool
  private let plan: TalkPlan
  private let mostStreams: Int
  private var calls: [UInt32: TalkCall] = [:]
  private var unsent = ByteFIFO()
  private var random: SimRandom
  private var statuses: [UInt32: String] = [:]
  private(set) var isFailed = false

  init(client: Bool, _ plan: TalkPlan, window: Int, table: Int, streams: Int) {
    isClient = client
    self.plan = plan
    mostStreams = streams
    random = SimRandom(seed: plan.seed &+ 77)
    var callbacks: OpaquePointer?
    nghttp2_session_callbacks_new(&callbacks)
    setCallbacks(callbacks)
    var option: OpaquePointer?
    nghttp2_option_new(&option)
    nghttp2_option_set_no_auto_window_update(option, 1)
    let me = Unmanaged.passUnretained(self).toOpaque()
    if client {
      nghttp2_session_client_new2(&session, callbacks, me, option)
    } else {
      nghttp2_session_server_new2(&session, callbacks, me, option)
    }
    nghttp2_session_callbacks_del(callbacks)
    nghttp2_option_del(option)
    let entries = [
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: UInt32(window)),
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_HEADER_TABLE_SIZE.rawValue), value: UInt32(table)),
    ]
    nghttp2_submit_settings(session, 0, entries, 2)
  }

  deinit { nghttp2_session_del(session) }

  private func setCallbacks(_ callbacks: OpaquePointer?) {
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, me in
      if let frame { NGHTTP2Party.of(me).note(frame.pointee) }
      return 0
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks) {
      _, frame, name, length, value, size, _, me in
      let name = String(decoding: UnsafeBufferPointer(start: name, count: length), as: UTF8.self)
      let value = String(decoding: UnsafeBufferPointer(start: value, count: size), as: UTF8.self)
      let id = UInt32(frame?.pointee.hd.stream_id ?? 0)
      NGHTTP2Party.of(me).note(id, name, value)
      return 0
    }
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, id, bytes, count, me in
      NGHTTP2Party.of(me).note(UInt32(id), Array(UnsafeBufferPointer(start: bytes, count: count)))
      return 0
    }
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, id, code, me in
      NGHTTP2Party.of(me).noteClose(UInt32(id), code)
      return 0
    }
    nghttp2_session_callbacks_set_select_padding_callback(callbacks) { _, frame, most, me in
      let length = frame?.pointee.hd.length ?? 0
      let party = NGHTTP2Party.of(me)
      guard most > length, party.random.chance(200) else { return length }
      return length + party.random.below(min(most - length, 255))
    }
  }

  fileprivate static func of(_ pointer: UnsafeMutableRawPointer?) -> NGHTTP2Party {
    guard let pointer else { preconditionFailure("a callback without its owner") }
    return Unmanaged<NGHTTP2Party>.fromOpaque(pointer).takeUnretainedValue()
  }

  // MARK: Events

  private func note(_ frame: nghttp2_frame) {
    let (id, type) = (UInt32(frame.hd.stream_id), Int(frame.hd.type))
    let ends = frame.hd.flags & 1 != 0
    if type == 1 {
      if !isClient, calls[id] == nil { calls[id] = TalkCall() }
      calls[id]?.headSeen = true
    }
    if type == 7 { plan.problem("nghttp2 got GOAWAY \(frame.goaway.error_code)") }
    guard type <= 1, ends else { return }
    if calls[id] != nil, calls[id]?.received != plan.size(id, request: !isClient) {
      plan.problem("nghttp2's stream \(id) ended at \(calls[id]?.received ?? -1)")
    }
    calls[id]?.seenEnd = true
    let expected = id % 4 == 1 ? "0" : "5"
    if isClient, statuses[id] != expected { plan.problem("status \(statuses[id] ?? "none") of stream \(id)") }
  }

  private func note(_ id: UInt32, _ name: String, _ value: String) {
    switch name {
    case "grpc-status": statuses[id] = value
    case "token": if value != "secret.\(id % 3)" { plan.problem("stream \(id) has token \(value)") }
    case "grpc-timeout": if value != "\(id)m" { plan.problem("stream \(id) has timeout \(value)") }
    case "grpc-message":
      let length = id % 4 == 1 ? 0 : id % 16 == 7 ? 40_000 : 5
      if value.utf8.count != length { plan.problem("a message of \(value.utf8.count)") }
    default: break
    }
  }

  private func note(_ id: UInt32, _ bytes: [UInt8]) {
    guard let call = calls[id] else {
      nghttp2_session_consume_connection(session, bytes.count)
      return
    }
    if bytes != plan.bytes(id, request: !isClient, at: call.received, count: bytes.count) {
      plan.problem("nghttp2's stream \(id) is wrong at \(call.received)")
    }
    calls[id]?.received += bytes.count
    calls[id]?.held += bytes.count
  }

  private func noteClose(_ id: UInt32, _ code: UInt32) {
    guard let call = calls.removeValue(forKey: id) else { return }
    if call.held > 0 { nghttp2_session_consume_connection(session, call.held) }
    if plan.killed.contains(id) { return }
    if code != 0 || !call.seenEnd || !call.sentEnd {
      plan.problem("nghttp2's stream \(id) closed: \(code) \(call)")
    }
  }

  // MARK: Bytes

  func take(_ bytes: [UInt8]) {
    guard !isFailed else { return }
    let used = nghttp2_session_mem_recv(session, bytes, bytes.count)
    guard used == bytes.count else {
      isFailed = true
      return plan.problem("nghttp2 took \(used): \(String(cString: nghttp2_strerror(Int32(used))))")
    }
  }

  func give(_ limit: Int) -> [UInt8] {
    while unsent.count < limit {
      var bytes: UnsafePointer<UInt8>?
      let count = nghttp2_session_mem_send(session, &bytes)
      guard count > 0 else { break }
      unsent.append(UnsafeRawBufferPointer(start: bytes, count: count))
    }
    return unsent.take(limit)
  }

  // MARK: Acting

  var open: Int { calls.count }

  func act(_ random: inout SimRandom, lively: Bool) -> Bool {
    if isClient, lively, calls.count < mostStreams, random.chance(300) { return openCall() }
    if lively, random.chance(20) { nghttp2_submit_ping(session, 0, nil) }
    if lively, random.chance(10) {
      var entry = nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
        value: 200 + UInt32(random.size(upTo: 100_000)))
      nghttp2_submit_settings(session, 0, &entry, 1)
    }
    guard let id = calls.keys.sorted().dropFirst(random.below(calls.count)).first, let call = calls[id] else {
      return false
    }
    if lively, random.chance(30) {
      plan.killed.insert(id)
      nghttp2_submit_rst_stream(session, 0, Int32(id), 8)
      return true
    }
    if call.held > 0, random.chance(500) || !lively {
      let amount = lively ? random.size(upTo: call.held) : call.held
      calls[id]?.held -= amount
      nghttp2_session_consume(session, Int32(id), amount)
      return true
    }
    if !isClient, !call.headSent { return respond(id) }
    return nghttp2_session_resume_data(session, Int32(id)) == 0
  }

  private static var provider: nghttp2_data_provider {
    nghttp2_data_provider(
      source: nghttp2_data_source(),
      read_callback: { _, id, room, count, flags, _, me in
        guard let room, let flags else { return 0 }
        return NGHTTP2Party.of(me).fill(
          UInt32(id), UnsafeMutableRawBufferPointer(start: room, count: count), flags)
      })
  }

  private func fill(
    _ id: UInt32, _ room: UnsafeMutableRawBufferPointer, _ flags: UnsafeMutablePointer<UInt32>
  ) -> Int {
    guard let call = calls[id] else { return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue) }
    let rest = plan.size(id, request: isClient) - call.sent
    if rest > 0, random.chance(300) { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
    if !isClient, rest == 0, !call.seenEnd { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
    let amount = min(rest, room.count, random.size(upTo: 20_000))
    room.copyBytes(from: plan.bytes(id, request: isClient, at: call.sent, count: amount))
    calls[id]?.sent += amount
    guard amount == rest, isClient || call.seenEnd else { return amount }
    flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
    calls[id]?.sentEnd = true
    if !isClient {
      flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
      withPairs([("grpc-status", id % 4 == 1 ? "0" : "5")]) {
        _ = nghttp2_submit_trailer(session, Int32(id), $0, $1)
      }
    }
    return amount
  }

  private func openCall() -> Bool {
    var provider = Self.provider
    let id = UInt32(nghttp2_session_get_next_stream_id(session))
    let size = plan.size(id, request: true)
    var opened: Int32 = 0
    withPairs(goodRequest + [("token", "secret.\(id % 3)")]) { pairs, count in
      withUnsafePointer(to: &provider) { provider in
        opened = nghttp2_submit_request(session, nil, pairs, count, size == 0 ? nil : provider, nil)
      }
    }
    guard opened == Int32(id) else { return false }
    calls[id] = TalkCall()
    calls[id]?.sentEnd = size == 0
    return true
  }

  private func respond(_ id: UInt32) -> Bool {
    var provider = Self.provider
    withPairs(goodResponse) { _ = nghttp2_submit_response(session, Int32(id), $0, $1, &provider) }
    calls[id]?.headSent = true
    return true
  }

  private func withPairs(_ fields: [(String, String)], _ body: (UnsafePointer<nghttp2_nv>, Int) -> Void) {
    var arena: [UInt8] = fields.flatMap { Array($0.0.utf8) + Array($0.1.utf8) } + [0]
    arena.withUnsafeMutableBufferPointer { arena in
      guard var place: UnsafeMutablePointer<UInt8> = arena.baseAddress else { return }
      let pairs = fields.map { (name, value) -> nghttp2_nv in
        let (length, size) = (name.utf8.count, value.utf8.count)
        defer { place += length + size }
        return nghttp2_nv(
          name: place, value: place + length, namelen: length, valuelen: size, flags: 0)
      }
      body(pairs, pairs.count)
    }
  }

  /// The window that nghttp2 thinks we have, for comparison.
  var remoteWindow: Int { Int(nghttp2_session_get_remote_window_size(session)) }
  var localWindow: Int { Int(nghttp2_session_get_local_window_size(session)) }

  func check() {
    if !calls.isEmpty { plan.problem("nghttp2 still has \(calls)") }
  }
}
