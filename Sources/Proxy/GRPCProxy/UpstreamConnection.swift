internal import Reactor

/// What a connection to etcd is for.
enum Purpose: Int, CaseIterable {
  case calls
  /// So that no large answer stands before an event.
  case watches
  /// So that it can rest: etcd answers heartbeats one by one, and a core that is woken for each has more to do with waking
  /// than with heartbeats.
  case heartbeats

  init(_ method: EtcdMethod) {
    self =
      switch method {
      case .watch: .watches
      case .leaseKeepAlive: .heartbeats
      default: .calls
      }
  }
}

/// A connection of one core to one endpoint.
struct UpstreamConnection: ~Copyable {
  enum Phase {
    /// The socket connects.
    case connecting
    /// TLS, or the wait for the endpoint's SETTINGS: until they have come the endpoint may be a stopped process whose
    /// kernel accepts for it, so no call is trusted to it.
    case greeting
    /// Takes calls.
    case ready
    /// The endpoint has said GOAWAY: the calls it has may finish.
    case draining
    /// Ended; operations are called back.
    case ended
  }

  let slot: Int
  let purpose: Purpose
  let endpoint: Endpoint
  var transport: Transport
  var phase = Phase.connecting
  var isConnecting = true
  /// Which of the endpoint's addresses is being tried.
  var address = 0
  /// When the attempt began, later when the connection became ready.
  var since: Instant
  /// When a call last went to it while nothing was outstanding, and when it was last heard: silence is measured from the later.
  var asked: Instant
  /// When it was asked whether it lives; nil once it has answered.
  var pinged: Instant?
  var lastPing: Instant
  /// It is not listened to for a moment, so that more comes at once.
  var isResting = false
  var isTouched = false
  /// A call has found all its streams taken.
  var isFull = false
  /// Why it ended, for the calls that are told.
  var cause = SystemError(code: 0)

  init(
    _ transport: consuming Transport, slot: Int, purpose: Purpose, endpoint: Endpoint, address: Int,
    now: Instant
  ) {
    self.transport = transport
    self.slot = slot
    self.purpose = purpose
    self.endpoint = endpoint
    self.address = address
    since = now
    asked = now
    lastPing = now
  }
}
