import Reactor
import Testing

@testable import Proxy

@Suite struct ProtoTests {
  @Test func readsEveryType() {
    let message: [UInt8] =
      [0x08, 0x96, 0x01]  // 1: 150
      + [0x11, 1, 0, 0, 0, 0, 0, 0, 0x80]  // 2: fixed64
      + [0x1A, 2, 0x61, 0x62]  // 3: "ab"
      + [0x23, 0x08, 1, 0x2B, 0x2C, 0x12, 1, 0x24, 0x24]  // 4: a group with a group and bytes in it
      + [0x2D, 4, 3, 2, 1]  // 5: fixed32
      + [0xF8, 0xFF, 0xFF, 0xFF, 0x0F, 1]  // 2^29 - 1: 1
    #expect(
      Wire.fields(message) == [
        .init(number: 1, wire: .varint, scalar: 150, bytes: []),
        .init(number: 2, wire: .fixed64, scalar: 0x8000_0000_0000_0001, bytes: []),
        .init(number: 3, wire: .bytes, scalar: 0, bytes: [0x61, 0x62]),
        .init(number: 4, wire: .group, scalar: 0, bytes: []),
        .init(number: 5, wire: .fixed32, scalar: 0x0102_0304, bytes: []),
        .init(number: 0x1FFF_FFFF, wire: .varint, scalar: 1, bytes: []),
      ])
    #expect(Wire.fields([]) == [])
    // More bytes than needed are allowed.
    #expect(Wire.fields([0x8A, 0x00, 0x81, 0x80, 0x00, 0x61])?.first?.bytes == [0x61])
    #expect(Wire.fields([0x08] + [UInt8](repeating: 0xFF, count: 9) + [1])?.first?.scalar == .max)
  }

  @Test(
    arguments: [
      [0x00, 0x00], [0x02, 0x00], [0x08], [0x08, 0x80], [0x0A, 0x01], [0x0A, 0x80], [0x0A, 0x02, 0x61],
      [0x09, 0, 0, 0, 0, 0, 0, 0], [0x0D, 0, 0, 0], [0x0B], [0x0B, 0x14], [0x0C], [0x0E, 0], [0x0F, 0],
      // Numbers and lengths that are too large.
      [0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
      [0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x80, 0x00],
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
      [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
      // Field 1 plus 2^32, which some decoders take for field 1, and 2^29.
      [0x8A, 0x80, 0x80, 0x80, 0x80, 0x01, 0x01, 0x61], [0x80, 0x80, 0x80, 0x80, 0x10, 0],
      // A group in a group that ends as the outer one.
      [0x0B, 0x13, 0x0C, 0x14],
    ] as [[UInt8]])
  func refusesWhatDecodersReadDifferently(message: [UInt8]) { #expect(Wire.fields(message) == nil) }

  @Test func groupsAreNotReadForEver() {
    let open = [UInt8](repeating: 0x0B, count: 100_000)
    #expect(Wire.fields(open) == nil)
    #expect(Wire.fields(open + [UInt8](repeating: 0x0C, count: 100_000)) == nil)
    let depth = Limits.protobufGroups
    #expect(Wire.fields(Array(open.prefix(depth)) + [UInt8](repeating: 0x0C, count: depth))?.count == 1)
  }

  @Test func nestedMessagesGetTheLengthTheyTake() {
    for size in [0, 1, 127, 128, 16383, 16384, 70000] {
      for expected in [0, size, 1 << 21] {
        let content = [UInt8](repeating: 0x55, count: size)
        let message = Wire.written { output in
          output.append(0x77)
          let outer = output.openMessage(3, expecting: expected)
          let inner = output.openMessage(70, expecting: expected)
          content.withUnsafeBytes { output.append($0) }
          output.closeMessage(inner)
          let dropped = output.openMessage(9)
          output.append(1)
          output.dropMessage(dropped)
          output.closeMessage(outer)
        }
        #expect(message == [0x77] + Wire.field(3, Wire.field(70, content)))
      }
    }
  }

  @Test func defaultsAreNotWritten() {
    let message = Wire.written { output in
      output.appendField(1, Int64(0))
      output.appendField(2, false)
      output.appendField(3, "")
      output.appendField(4, [])
      output.appendElement(5, "")
      output.appendField(6, Int64(-1))
      output.appendField(7, true)
    }
    #expect(message == [0x2A, 0, 0x30] + Wire.varint(.max) + [0x38, 1])
  }

  @Test func varintsHaveTheirSize() {
    for shift in 0..<64 {
      for value in [UInt64(1) << UInt64(shift), (UInt64(1) << UInt64(shift)) - 1] {
        #expect(ByteBuffer.varintSize(value) == Wire.varint(value).count)
        #expect(Wire.written { $0.appendVarint(value) } == Wire.varint(value))
      }
    }
  }
}
