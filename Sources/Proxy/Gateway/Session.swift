internal import Reactor

/// Which way bytes go.
enum Direction: UInt8 {
  /// From the client to the endpoint.
  case up = 0
  /// From the endpoint to the client.
  case down = 1
}

/// One client connection and the endpoint connection made for it.
struct Session: ~Copyable {
  enum Phase {
    /// Waiting for the client's PROXY header.
    case header
    /// Looking for an endpoint that takes the connection.
    case connecting
    /// Bytes flow.
    case relaying
    /// Ended; waiting until the kernel has let go of everything.
    case ending
  }

  /// Why a session ended, for the log and the counters.
  enum Reason: String, CaseIterable {
    case finished = "both sides ended"
    case clientBroke = "client reset the connection"
    case endpointBroke = "endpoint reset the connection"
    case noEndpoint = "no endpoint took the connection"
    case noDescriptor = "out of file descriptors or memory"
    case badHeader = "client sent no valid PROXY header"
    case idle = "idle for longer than --idle-timeout"
    case endpointHung = "endpoint stopped answering"
    case drained = "shutting down"

    /// The short form for a metric's label.
    var label: String {
      switch self {
      case .finished: "finished"
      case .clientBroke: "client_reset"
      case .endpointBroke: "endpoint_reset"
      case .noEndpoint: "no_endpoint"
      case .noDescriptor: "no_descriptor"
      case .badHeader: "bad_proxy_header"
      case .idle: "idle"
      case .endpointHung: "endpoint_hung"
      case .drained: "drained"
      }
    }
  }

  /// A connection attempt to one address of one endpoint.
  struct Attempt {
    var descriptor: Int32 = -1
    var endpoint: Endpoint?
    var address = 0
    var started = Instant(nanoseconds: 0)
    var isAbandoned = false
    var isInFlight: Bool { descriptor >= 0 }
  }

  /// The client's socket.
  let client: Int32
  /// The endpoint's socket once it is connected, else -1.
  var endpoint: Int32 = -1
  var phase = Phase.connecting
  var reason = Reason.finished
  /// Bytes were on their way to the endpoint, or to the client, when the session was ended.
  var losesBytes = (up: false, down: false)
  var up = Pump()
  var down = Pump()

  /// In the core's list of sessions to look at before the turn ends.
  var isTouched = false
  /// Keepalive options are set once a connection has lasted a while, so that short ones do not pay for them.
  var isKeptAlive = false
  /// The endpoint has sent something: the connection is its for good.
  var isAnswered = false
  /// The endpoint hangs and has sent nothing yet: the connection is on its way to another one.
  var isLeaving = false
  /// The last bytes went up: the client waits for an answer.
  var awaitsAnswer = false
  /// The endpoint that took the connection.
  var slot: Int16 = -1

  var timer = TimerWheel.Timer.none
  let accepted: Instant
  var connected = Instant(nanoseconds: 0)
  var lastActive: Instant

  /// What only setting up needs; gone once the endpoint has answered.
  var setup: Setup?
  /// The address the client's connection comes from, when something needs it.
  var source: Address?
  /// The address that the client's PROXY header names as its own.
  var announced: Address?
  /// Bytes already added to the endpoint's counters.
  var counted: (up: UInt64, down: UInt64) = (0, 0)

  /// State of a session that looks for an endpoint, or whose endpoint has not answered yet.
  final class Setup {
    var attempts = (Attempt(), Attempt())
    var tried = EndpointSet()
    var table: EndpointTable
    /// Bytes of the client's PROXY header so far.
    var header: [UInt8] = []
    /// The address that the client's PROXY header names as its own destination.
    var destination: Address?
    /// The kernel still has a poll for the header.
    var awaitsHeader = false
    /// What the client has sent since, once there was an endpoint to send it to.
    var replay: Replay?

    /// The attempt for which there was no descriptor.
    var postponed: Postponed?

    /// An attempt that waits for a descriptor.
    struct Postponed {
      var since: Instant
      let endpoint: Endpoint
      let address: Int
    }

    /// An attempt is under way.
    var isConnecting: Bool { attempts.0.isInFlight || attempts.1.isInFlight }

    init(table: EndpointTable) { self.table = table }
  }

  init(client: Int32, table: EndpointTable, now: Instant) {
    self.client = client
    accepted = now
    lastActive = now
    setup = Setup(table: table)
  }

  /// True while the kernel has an operation that will still complete.
  var isInFlight: Bool {
    if up.isInFlight || down.isInFlight { return true }
    guard let setup else { return false }
    return setup.isConnecting || setup.awaitsHeader
  }
}
