/// The SRV records in a DNS response (RFC 1035 section 4, RFC 2782), read from the raw message, because the lifetime
/// of an answer, which tells when to look again, is not in what resolver libraries hand out.
public struct DNSAnswer: Hashable, Sendable {
  /// One SRV record.
  public struct Service: Hashable, Sendable {
    /// The numerically lowest is to be tried first.
    public let priority: UInt16
    /// The share among those of equal priority.
    public let weight: UInt16
    /// The port of the service.
    public let port: UInt16
    /// The host name without trailing dot; `.` alone says that the service is not offered here.
    public let target: String

    /// Puts a record together; nothing is checked.
    public init(priority: UInt16, weight: UInt16, port: UInt16, target: String) {
      self.priority = priority
      self.weight = weight
      self.port = port
      self.target = target
    }
  }

  /// The records of type SRV and class IN in the order of the message.
  public let services: [Service]
  /// How long the answer holds, in seconds: the smallest lifetime of these records and of the CNAMEs that led to
  /// them; `nil` without records. RFC 2181 section 8: a value with the top bit set counts as 0.
  public let lifetime: UInt32?
  /// The RCODE: 0 no error, 3 no such name (RFC 1035 section 4.1.1).
  public let responseCode: UInt8
  /// How many SRV records were left out because their target is no host name (letters, digits, `-`, `_`).
  public let rejected: Int

  /// Why a message cannot be read.
  public enum Malformed: Error, Hashable, Sendable {
    /// It ends before what it announces.
    case truncated
    /// It is a query.
    case notAResponse
    /// A name is longer than 255 bytes, or has a label of a reserved type.
    case badName
    /// A compression pointer does not point backwards.
    case badPointer
    /// A record's data does not have the length that the record states.
    case badRecord
  }

  /// Reads a message as c-ares hands it to the callback of a query. Records of other types, and the authority and
  /// additional sections, are not looked at.
  public init(_ message: RawSpan) throws(Malformed) {
    guard message.byteCount >= 12 else { throw .truncated }
    guard message.octet(2) & 0x80 != 0 else { throw .notAResponse }
    responseCode = message.octet(3) & 15
    var offset = 12
    for _ in 0..<message.number16(4) {
      _ = try message.name(&offset)
      _ = try message.take(4, &offset)
    }
    var found: [Service] = []
    var smallest = UInt32.max
    var left = 0
    for _ in 0..<message.number16(6) {
      let record = try message.record(&offset)
      guard record.kind != .other else { continue }
      smallest = min(smallest, record.lifetime)
      guard let service = record.service else { continue }
      if Self.isHostName(service.target) { found.append(service) } else { left += 1 }
    }
    services = found
    rejected = left
    lifetime = found.isEmpty ? nil : smallest
  }

  private static func isHostName(_ text: String) -> Bool {
    text == "."
      || text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
          true
        default: false
        }
      }
  }
}

// MARK: - Reading

private struct Record {
  enum Kind { case service, alias, other }
  let kind: Kind
  let lifetime: UInt32
  /// Of a record of kind `service` only.
  let service: DNSAnswer.Service?
}

/// Each step moves `offset` on, never beyond the end of the message.
extension RawSpan {
  /// Steps over `count` bytes and returns where they start.
  fileprivate func take(_ count: Int, _ offset: inout Int) throws(DNSAnswer.Malformed) -> Int {
    guard byteCount - offset >= count else { throw .truncated }
    defer { offset += count }
    return offset
  }

  /// RFC 1035 section 4.1.3, with the data of an SRV record.
  fileprivate func record(_ offset: inout Int) throws(DNSAnswer.Malformed) -> Record {
    _ = try name(&offset)
    let head = try take(10, &offset)
    let data = try take(Int(number16(head + 8)), &offset)
    let seconds = number32(head + 4)
    let lifetime = seconds >> 31 == 0 ? seconds : 0
    switch (number16(head), number16(head + 2)) {
    case (33, 1):
      return Record(kind: .service, lifetime: lifetime, service: try service(data..<offset))
    case (5, 1):
      return Record(kind: .alias, lifetime: lifetime, service: nil)
    default:
      return Record(kind: .other, lifetime: lifetime, service: nil)
    }
  }

  private func service(_ data: Range<Int>) throws(DNSAnswer.Malformed) -> DNSAnswer.Service {
    guard data.count > 6 else { throw .badRecord }
    // RFC 2782 forbids compression here, but servers that do it are understood.
    var end = data.lowerBound + 6
    let target = try name(&end)
    guard end == data.upperBound else { throw .badRecord }
    let start = data.lowerBound
    return DNSAnswer.Service(
      priority: number16(start), weight: number16(start + 2), port: number16(start + 4), target: target)
  }

  /// A name (RFC 1035 section 4.1.4) without trailing dot; `.` for the root.
  fileprivate func name(_ offset: inout Int) throws(DNSAnswer.Malformed) -> String {
    var text: [UInt8] = []
    var place = offset
    // Where the run of labels began that `place` is in. A pointer must go before it, so this sinks with every jump,
    // which ends any chain of pointers.
    var start = offset
    var hasJumped = false
    var size = 1
    while true {
      guard place < byteCount else { throw .truncated }
      let length = Int(octet(place))
      if length >= 0xC0 {
        guard place + 1 < byteCount else { throw .truncated }
        let goal = Int(number16(place) & 0x3FFF)
        if !hasJumped { offset = place + 2 }
        hasJumped = true
        guard goal < start else { throw .badPointer }
        (place, start) = (goal, goal)
        continue
      }
      place += 1
      if length == 0 { break }
      size += length + 1
      guard length < 64, size <= 255 else { throw .badName }
      guard byteCount - place >= length else { throw .truncated }
      append(label: place..<place + length, to: &text)
      place += length
    }
    if !hasJumped { offset = place }
    return text.isEmpty ? "." : String(decoding: text, as: UTF8.self)
  }

  /// A dot inside a label is no separator; escaped, it is told apart and cannot pass for a host name.
  private func append(label: Range<Int>, to text: inout [UInt8]) {
    if !text.isEmpty { text.append(UInt8(ascii: ".")) }
    for byte in octets(label) {
      if byte == UInt8(ascii: ".") || byte == UInt8(ascii: "\\") { text.append(UInt8(ascii: "\\")) }
      text.append(byte)
    }
  }
}
