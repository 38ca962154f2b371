internal import Reactor

/// One open stream.
struct HTTP2Stream {
  struct Flags: OptionSet {
    let rawValue: UInt16
    /// The peer has sent its last frame.
    static let peerEnded = Flags(rawValue: 1)
    /// We have.
    static let ended = Flags(rawValue: 2)
    /// The peer's first header block was complete.
    static let headSeen = Flags(rawValue: 4)
    static let hasUser = Flags(rawValue: 8)
    /// In the line of streams that wait for the connection.
    static let inLine = Flags(rawValue: 16)
    /// It has refused bytes and waits for its own window.
    static let waitsForWindow = Flags(rawValue: 32)
  }

  /// 0 is a free slot of the table.
  var id: UInt32 = 0
  var flags: Flags = []
  /// What we may send. Below zero when the peer has shrunk its initial window.
  var sendWindow: Int32 = 0
  /// What the peer may send.
  var receiveWindow: Int32 = 0
  /// What the peer may send when everything has been credited.
  var receiveSize: Int32 = 0
  /// Credited by the owner and not yet announced.
  var creditDue: Int32 = 0
  /// What `content-length` still demands; -1 when the peer gave none.
  var bodyLeft: Int64 = -1
  private var userSlot = Handle(slot: 0, generation: 0)
  /// Neighbours in the line, by number; 0 is none.
  var ahead: UInt32 = 0
  var behind: UInt32 = 0

  var user: Handle? {
    get { flags.contains(.hasUser) ? userSlot : nil }
    set {
      if let newValue {
        userSlot = newValue
        flags.insert(.hasUser)
      } else {
        flags.remove(.hasUser)
      }
    }
  }
}
