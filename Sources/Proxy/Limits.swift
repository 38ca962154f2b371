/// Every cap of the proxy in one place, and how caps relate (`check`). Flags may lower some, never lift one.
public enum Limits {
  // Receiving.
  /// Receive buffers a core and bytes in each: 1 MiB in all, since a larger pool is always cold in the cache.
  static let receiveBuffers = 256
  static let receiveBufferSize = 4096

  // Connections.
  /// Connections a core keeps, beyond which it refuses; memory is only used for those there are.
  static let connectionsACore = 1 << 20
  /// Pending connections that the kernel queues for a listener.
  static let listenBacklog: Int32 = 4096
  /// How often, and with which pause, an address in use is tried: a second in all.
  static let bindTries = 20
  static let bindPauseMicroseconds: UInt32 = 50_000
  /// Longest PROXY protocol header that is waited for, and for how long.
  static let proxyHeaderBytes = 16 + 4096
  static let proxyHeaderMilliseconds: UInt64 = 5000
  /// Until a session looks again for a descriptor to connect with, unless one comes free before.
  static let descriptorPauseMilliseconds: UInt64 = 50
  /// Distinct sources counted for `--max-connections-per-source`; past it a new source is refused.
  static let countedSources = 1 << 17

  // Splicing.
  /// Pipes a core makes at most, and keeps when they are idle. Two descriptors each.
  static let pipesACore = 512
  static let idlePipesACore = 32
  static let pipeCapacity: Int32 = 1 << 20
  static let pipeCapacityLeast: Int32 = 64 << 10

  /// Descriptors kept for listeners, logs, DNS, probes, the metrics page and pipes.
  static let descriptorsForOthers = 256
  /// Receive buffers of the control thread, which reads hardly anything.
  static let controlBuffers = 16

  // Endpoints.
  /// Endpoints at most; a connection remembers which it tried in a set of this many bits.
  static let endpoints = 128
  static let addressesAnEndpoint = 16

  // TLS.
  /// Bytes of a file with certificates, keys or revocation lists.
  static let tlsFileBytes = 64 << 20
  /// Bytes of the other end until its handshake must be complete: OpenSSL's largest certificate list with room.
  static let tlsHandshakeBytes = 256 << 10
  /// Room for one's own part of a handshake; more is made when a chain of certificates is long.
  static let tlsFlightBytes = 4096
  /// Plain bytes of a record, and by how much it can be longer (RFC 5246 section 6.2.3), alert included.
  static let tlsRecordBytes = 16 << 10
  static let tlsRecordOverhead = 256
  /// A self-signed certificate is renewed so long before it expires.
  static let selfSignedRenewalDays: Int64 = 30

  /// Asserts how the caps relate; called once at start.
  static func check() {
    precondition(receiveBuffers * receiveBufferSize <= 8 << 20, "receive buffers must fit the memlock limit")
    precondition(connectionsACore <= 1 << 24, "a handle's slot has 24 bits")
    precondition(endpoints <= 128, "EndpointSet has 128 bits")
    precondition(idlePipesACore <= pipesACore)
    precondition(pipeCapacityLeast <= pipeCapacity)
  }
}
