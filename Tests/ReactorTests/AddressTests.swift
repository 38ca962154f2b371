import Glibc
import Testing

import Reactor

@Suite struct AddressTests {
  @Test(arguments: [
    ("127.0.0.1", Address.v4(0x7F00_0001, port: 2379)),
    ("255.255.255.255", .v4(0xFFFF_FFFF, port: 2379)),
    ("::1", .v6(high: 0, low: 1, port: 2379, scope: 0)),
    ("2001:db8::a:b", .v6(high: 0x2001_0DB8_0000_0000, low: 0xA_000B, port: 2379, scope: 0)),
    ("fe80::1%3", .v6(high: 0xFE80_0000_0000_0000, low: 1, port: 2379, scope: 3)),
    ("::ffff:10.0.0.1", .v6(high: 0, low: 0xFFFF_0A00_0001, port: 2379, scope: 0)),
  ])
  func readsAndPrints(text: String, expected: Address) {
    let address = Address(ip: text, port: 2379)
    #expect(address == expected)
    #expect(address?.host == text)
    #expect(address?.port == 2379)
    #expect(address?.description == (text.contains(":") ? "[\(text)]:2379" : "\(text):2379"))
  }

  @Test(arguments: [
    "", "localhost", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1.2.3.4\0", "1.2.3.4%1",
    "[::1]",
    "::1%", "::1%eth0", "::1%+1", "::1%-1", "::1%1%1", "::1%4294967296", ":::", "1:2:3:4:5:6:7:8:9", "::1\0x",
    "é",
  ])
  func refuses(text: String) { #expect(Address(ip: text, port: 1) == nil) }

  @Test func knowsItsKind() {
    #expect(Address(ip: "0.0.0.0", port: 1)?.isUnspecified == true)
    #expect(Address(ip: "::", port: 1)?.isUnspecified == true)
    #expect(Address(ip: "::ffff:0.0.0.0", port: 1)?.isUnspecified == true)
    #expect(Address(ip: "0.0.0.1", port: 1)?.isUnspecified == false)
    #expect(Address(ip: "127.9.9.9", port: 1)?.isLoopback == true)
    #expect(Address(ip: "::1", port: 1)?.isLoopback == true)
    #expect(Address(ip: "::ffff:127.0.0.1", port: 1)?.isLoopback == true)
    #expect(Address(ip: "::2", port: 1)?.isLoopback == false)
    #expect(Address(ip: "128.0.0.1", port: 1)?.isLoopback == false)
    #expect(!Address.unix("").isUnspecified && !Address.unix("/x").isLoopback)
    #expect(Address.unix("/x").family == AF_UNIX && Address.unix("/x").port == 0)
    #expect(
      Address(ip: "::", port: 1)?.family == AF_INET6 && Address(ip: "0.0.0.0", port: 1)?.family == AF_INET)
  }

  @Test func unmapsOnlyMapped() {
    #expect(Address(ip: "::ffff:10.0.0.1", port: 7)?.unmapped == Address(ip: "10.0.0.1", port: 7))
    for text in ["::1", "::fffe:10.0.0.1", "1::ffff:10.0.0.1", "10.0.0.1"] {
      let address = Address(ip: text, port: 7)
      #expect(address?.unmapped == address)
    }
  }

  @Test func unixPathsAreBounded() {
    let longest = "/" + String(repeating: "a", count: 106)
    #expect(Address(unixPath: longest) == .unix(longest))
    #expect(Address(unixPath: longest + "a") == nil)
    #expect(Address(unixPath: "") == nil)
    #expect(Address(unixPath: "/a\0b") == nil)
    #expect(Address.unix("/run/x").description == "unix:/run/x")
    #expect(Address.unix("").description == "unix:")
    #expect(Address.unix(longest + "a").withSocketAddress { $1 } == 0)
    #expect(Address.unix("/a\0b").withSocketAddress { $1 } == 0)
  }

  @Test(arguments: [
    Address.v4(0x7F00_0001, port: 0x1234), .v6(high: 0x0102_0304_0506_0708, low: 9, port: 1, scope: 5),
    .unix(""), .unix("/run/x.sock"), .unix("@abstract"), .unix("@a\0b"),
    .unix("/" + String(repeating: "a", count: 106)), .unix("@" + String(repeating: "a", count: 106)),
  ])
  func survivesTheRoundTrip(address: Address) {
    #expect(address.withSocketAddress { Address($0, length: $1) } == address)
  }

  @Test(arguments: [
    "127.0.0.1", "::1", "::ffff:127.0.0.1", "@ringway-address-test", "/tmp/ringway-address-test",
  ])
  func kernelAgrees(text: String) throws {
    let path = "\(text)-\(getpid())"
    let address = try #require(Address(ip: text, port: 0) ?? Address(unixPath: path))
    let socket = Glibc.socket(address.family, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(socket) }
    unlink(path)
    defer { unlink(path) }
    #expect(address.withSocketAddress { bind(socket, $0, $1) } == 0)
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let bound = withUnsafeMutablePointer(to: &storage) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        getsockname(socket, pointer, &length) == 0 ? Address(pointer, length: length) : nil
      }
    }
    #expect(bound?.host == address.host)
    #expect(bound?.family == address.family)
    #expect((bound?.port ?? 0 != 0) == (address.family != AF_UNIX))
  }

  @Test func shortOrStrangeSocketAddressesAreRefused() {
    for length in socklen_t(0)..<16 {
      #expect(
        Address.v4(1, port: 1).withSocketAddress { pointer, _ in Address(pointer, length: length) } == nil)
    }
    for length in socklen_t(0)..<28 {
      let six = Address.v6(high: 1, low: 1, port: 1, scope: 0)
      #expect(six.withSocketAddress { pointer, _ in Address(pointer, length: length) } == nil)
    }
    var strange = sockaddr(sa_family: 77, sa_data: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    #expect(Address(&strange, length: 16) == nil)
  }

  @Test func pathsThatLookAbstractAreToldApart() {
    #expect(Address(unixName: Array("@x".utf8)) == .unix("./@x"))
    #expect(Address(unixName: [0] + Array("x".utf8)) == .unix("@x"))
    #expect(Address(unixName: [0]) == .unix(""))
    #expect(Address(unixName: []) == .unix(""))
    #expect(Address(unixName: Array(repeating: 97, count: 108)) == nil)
    #expect(Address(unixName: [0] + Array(repeating: 97, count: 107)) == nil)
    #expect(Address(unixName: [47, 0xFF]) == .unix("/\u{FFFD}"))
  }
}
