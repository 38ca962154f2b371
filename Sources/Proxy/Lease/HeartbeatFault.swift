/// What the end of a stream of heartbeats at etcd means for those who share it.
enum HeartbeatFault {
  /// There is no leader: for everybody who asked for one.
  case leader
  /// etcd does not take the token that the stream was opened with.
  case token
  /// etcd does not take the heartbeat that it came to, since it answers them one by one.
  case beat
  /// The stream was lost, or the member is not well; what is unanswered may be asked elsewhere.
  case loss

  init(_ code: GRPCStatus.Code, _ words: String, requiresLeader: Bool) {
    switch code {
    case .unavailable where requiresLeader && words == "etcdserver: no leader": self = .leader
    case .unauthenticated: self = .token
    case .invalidArgument
    where words == "etcdserver: user name is empty" || words == "etcdserver: revision of auth store is old":
      self = .token
    // The last is what remains when a stream is reset.
    case .unavailable, .canceled, .ok, .internal: self = .loss
    default: self = .beat
    }
  }
}
