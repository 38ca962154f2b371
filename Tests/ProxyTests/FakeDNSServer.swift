import Glibc
import Synchronization

/// A name server on a port of 127.0.0.1 with a thread of its own, UDP and TCP. The name decides the answer.
final class FakeDNSServer: @unchecked Sendable {
  private static let soStream = Int32(SOCK_STREAM.rawValue)
  private static let soDatagram = Int32(SOCK_DGRAM.rawValue)

  let port: UInt16
  private let datagrams: Int32
  private let listener: Int32
  private var stop: [Int32] = [-1, -1]
  private var thread = pthread_t()
  let tcpQuestions = Atomic<Int>(0)
  let questions = Atomic<Int>(0)

  init() {
    pipe(&stop)
    (datagrams, listener, port) = Self.pair()
    listen(listener, 64)
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      { argument in
        if let argument { Unmanaged<FakeDNSServer>.fromOpaque(argument).takeRetainedValue().serve() }
        return nil
      }, box.toOpaque())
  }

  /// Ends the thread and waits for it.
  func end() {
    write(stop[1], [1], 1)
    pthread_join(thread, nil)
    for descriptor in [datagrams, listener] + stop { close(descriptor) }
  }

  /// A UDP and a TCP socket on one port: the other half of a free port may be taken by somebody else.
  private static func pair() -> (Int32, Int32, UInt16) {
    for _ in 0..<1000 {
      guard let (datagrams, port) = bound(soDatagram, 0) else { continue }
      if let (listener, _) = bound(soStream, port) { return (datagrams, listener, port) }
      close(datagrams)
    }
    fatalError("no port is free")
  }

  private static func bound(_ kind: Int32, _ port: UInt16) -> (Int32, UInt16)? {
    let descriptor = socket(AF_INET, kind, 0)
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &name) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
      }
    }
    if isBound { return (descriptor, UInt16(bigEndian: name.sin_port)) }
    close(descriptor)
    return nil
  }

  private func serve() {
    var watched = [stop[0], datagrams, listener].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    while poll(&watched, 3, -1) > 0, watched[0].revents == 0 {
      if watched[1].revents != 0 { serveDatagram() }
      if watched[2].revents != 0 { serveStream() }
    }
  }

  private func serveDatagram() {
    var room = [UInt8](repeating: 0, count: 600)
    var from = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    withUnsafeMutablePointer(to: &from) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
        let count = recvfrom(datagrams, &room, room.count, 0, name, &length)
        guard count > 12, let answer = answer(Array(room[..<count]), overTCP: false) else { return }
        sendto(datagrams, answer, answer.count, 0, name, length)
      }
    }
  }

  private func serveStream() {
    let connection = accept(listener, nil, nil)
    defer { close(connection) }
    var room = [UInt8](repeating: 0, count: 600)
    // c-ares sends length and question together; both are small.
    let count = recv(connection, &room, room.count, 0)
    guard count > 14, let answer = answer(Array(room[2..<count]), overTCP: true) else { return }
    let framed = [UInt8(answer.count >> 8), UInt8(answer.count & 255)] + answer
    // Two pieces, so that the other end has to wait in the middle of an answer.
    send(connection, framed, 1, Int32(MSG_NOSIGNAL))
    send(connection, Array(framed[1...]), framed.count - 1, Int32(MSG_NOSIGNAL))
  }

  // MARK: Answers

  private struct Record {
    var type: UInt16
    var ttl: UInt32
    var data: [UInt8]
  }

  private func answer(_ question: [UInt8], overTCP: Bool) -> [UInt8]? {
    questions.wrappingAdd(1, ordering: .relaxed)
    if overTCP { tcpQuestions.wrappingAdd(1, ordering: .relaxed) }
    var labels: [String] = []
    var at = 12
    while at < question.count, question[at] != 0 {
      let end = at + 1 + Int(question[at])
      labels.append(String(decoding: question[(at + 1)..<end], as: UTF8.self))
      at = end
    }
    let type = UInt16(question[at + 1]) << 8 | UInt16(question[at + 2])
    let questionEnd = at + 5
    let name = labels.joined(separator: ".")
    if name.hasPrefix("silent") { return nil }
    var code: UInt8 = 0
    if name.hasPrefix("missing") { code = 3 }
    if name.hasPrefix("broken") { code = 2 }
    let truncated = name.hasPrefix("big") && !overTCP
    let records = code == 0 && !truncated ? Self.records(name, type) : []
    var bytes = Array(question[..<2])
    bytes += [0x84 | (truncated ? 2 : 0) | 1, 0x80 | code, 0, 1, 0, UInt8(records.count), 0, 0, 0, 0]
    bytes += question[12..<questionEnd]
    for record in records {
      bytes += [0xC0, 12, UInt8(record.type >> 8), UInt8(record.type & 255), 0, 1]
      bytes += (0..<4).map { UInt8(truncatingIfNeeded: record.ttl >> (24 - 8 * $0)) }
      bytes += [UInt8(record.data.count >> 8), UInt8(record.data.count & 255)] + record.data
    }
    return bytes
  }

  private static func records(_ name: String, _ type: UInt16) -> [Record] {
    let first = name.split(separator: ".").first ?? ""
    let six = [0xFD] + [UInt8](repeating: 0, count: 14) + [1]
    switch (first, type) {
    case ("one", 28): return [Record(type: 28, ttl: 60, data: six)]
    case ("one", 1):
      return [
        Record(type: 1, ttl: 100, data: [10, 0, 0, 1]), Record(type: 1, ttl: 90, data: [10, 0, 0, 2]),
      ]
    case ("short", 1): return [Record(type: 1, ttl: 0, data: [10, 0, 0, 3])]
    case ("long", 1): return [Record(type: 1, ttl: 86400, data: [10, 0, 0, 4])]
    case ("six", 28): return [Record(type: 28, ttl: 60, data: six)]
    case ("big", 1): return (0..<60).map { Record(type: 1, ttl: 60, data: [10, 1, 0, $0]) }
    case ("_etcd-client", 33):
      let target: [UInt8] = [3] + Array("one".utf8) + [4] + Array("test".utf8) + [0]
      return [Record(type: 33, ttl: 60, data: [0, 1, 0, 2, 0x09, 0x4B] + target)]
    case (_, 1) where first.hasPrefix("n"):
      guard let number = UInt8(first.dropFirst()) else { return [] }
      return [Record(type: 1, ttl: 60, data: [10, 2, 0, number])]
    default: return []
    }
  }
}
