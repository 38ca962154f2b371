internal import Reactor

/// What a client does not want to share with others: the request metadata `ringway-bypass`.
enum Bypass {
  case nothing
  /// Each watch gets one of its own upstream.
  case watch
  /// Reads come from etcd.
  case cache
  /// Both, and heartbeats too: the calls are passed on as they are.
  case all

  init(_ fields: HeaderList) {
    guard let value = unsafe fields.value(of: .bypass) else {
      self = .nothing
      return
    }
    if unsafe value.isEqual(to: "watch") {
      self = .watch
    } else if unsafe value.isEqual(to: "cache") {
      self = .cache
    } else {
      self = unsafe value.isEqual(to: "all") ? .all : .nothing
    }
  }
}

extension ProxyCore {
  /// Whether a key lies under one of `--bypass`.
  func isBypassed(_ key: [UInt8]) -> Bool {
    // As the client knows it.
    let own = key.dropFirst(shared.namespace?.prefix.count ?? 0)
    return options.bypassPrefixes.contains { own.starts(with: $0.utf8) }
  }
}
