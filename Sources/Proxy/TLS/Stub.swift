internal import Reactor
struct TLSContext { static func client(trustedCAFile: String?) throws -> TLSContext { TLSContext() } }
struct TLSHandshake { enum State { case going, done, failed(String) }
 init(context: TLSContext, serverName: String?) {}
 mutating func start() -> [UInt8] { [] }
 mutating func receive(_ b: UnsafeRawBufferPointer) -> (send: [UInt8], state: State) { ([], .going) }
 var sawPeer: Bool { false }
 var certificateVerified: Bool? { nil } }
struct ServiceManager { struct L { var descriptor: Int32 }
 var watchdogInterval: Instant.Span? { nil }
 func ready() {}; func stopping() {}; func reloading() {}; func feedWatchdog() {}
 func inheritedListeners() -> [L] { [] }
}
