/// What to act on, where it is not simply the value that was given: zero and negative values mean what they mean
/// to etcd's client and to the gRPC library below it.
extension GRPCProxyOptions {
  /// The longest message to send to etcd; nil if the flag was not given. The default of etcd's proxy refuses
  /// messages that etcd accepts, whose limit counts without the overhead of a message: only etcd can tell.
  var sendLimit: Int? {
    guard common.explicitFlags.contains("max-send-bytes") else { return nil }
    return maxSendBytes > 0 ? maxSendBytes : 2 << 20
  }

  /// The longest message to take from etcd.
  var receiveLimit: Int { maxReceiveBytes > 0 ? maxReceiveBytes : Int(Int32.max) }

  /// What a client must leave between two pings.
  var leastClientPingInterval: GoDuration { keepaliveMinTime > .zero ? keepaliveMinTime : .minutes(5) }

  /// The silence after which a client is pinged.
  var clientPingInterval: GoDuration {
    keepaliveInterval > .zero ? max(keepaliveInterval, .seconds(1)) : .minutes(120)
  }

  /// What a client has to answer a ping.
  var clientPingTimeout: GoDuration { keepaliveTimeout > .zero ? keepaliveTimeout : .seconds(20) }

  /// The period of pings to etcd; nil for none.
  var upstreamPingInterval: GoDuration? {
    dialKeepaliveTime > .zero ? max(dialKeepaliveTime, .seconds(10)) : nil
  }

  /// What etcd has to answer a ping.
  var upstreamPingTimeout: GoDuration { dialKeepaliveTimeout > .zero ? dialKeepaliveTimeout : .seconds(20) }

  /// The period of taking the endpoints from etcd's member list; nil for never.
  var effectiveAutoSyncInterval: GoDuration? {
    autoSyncInterval > .zero ? max(autoSyncInterval, .milliseconds(Limits.leastAutoSyncMilliseconds)) : nil
  }

  /// The least important log lines to write.
  var effectiveLogLevel: CommonOptions.LogLevel { debug ? .debug : common.logLevel }

  /// Whether this proxy registers for other proxies to see.
  var registers: Bool { !resolverPrefix.isEmpty }

  /// Whether clients speak TLS.
  var listensWithTLS: Bool { namesListenFiles || autoTLS }

  /// Whether any file for TLS towards clients is named, which leaves `--auto-tls` nothing to do.
  var namesListenFiles: Bool {
    !listenCertificateFile.isEmpty || !listenKeyFile.isEmpty || !listenTrustedCAFile.isEmpty
  }

  /// Whether any flag for TLS towards etcd is set.
  var configuresUpstreamTLS: Bool {
    !certificateFile.isEmpty || !keyFile.isEmpty || !caFile.isEmpty || skipsVerification
  }

  /// A version of TLS on the command line.
  enum TLSVersion: String, CaseIterable, Comparable {
    case v12 = "TLS1.2"
    case v13 = "TLS1.3"

    static func < (a: TLSVersion, b: TLSVersion) -> Bool { a.rawValue < b.rawValue }
  }

  /// The oldest version to speak with clients; nil for the library's choice.
  var leastTLSVersion: TLSVersion? { TLSVersion(rawValue: tlsMinVersion) }

  /// The newest version to speak with clients; nil for the newest there is.
  var greatestTLSVersion: TLSVersion? { TLSVersion(rawValue: tlsMaxVersion) }

  /// What to warn of at start: flags that weaken something, or that do not mean here what they mean in etcd.
  var startWarnings: [String] {
    var warnings: [String] = []
    if skipsVerification {
      // etcd's words.
      warnings.append(
        "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server "
          + "TLS certificates. This option should be enabled only for testing purposes.")
    }
    if advertisesElsewhere {
      warnings.append(
        "--advertise-client-url was not given: member lists send clients to \(advertiseURL), where this "
          + "proxy does not listen; set it to where clients reach it, or empty to show etcd's members"
      )
    }
    if !leasingPrefix.isEmpty {
      warnings.append(
        "--experimental-leasing-prefix has no effect: consistent reads from the cache take the place of leases"
      )
    }
    return warnings
  }

  /// The default is advertised although clients are accepted at another port only.
  private var advertisesElsewhere: Bool {
    guard !common.explicitFlags.contains("advertise-client-url") else { return false }
    return !common.listenAddresses.contains {
      $0.utf8.elementsEqual(advertiseURL.utf8) || endsWithDefault($0)
    }
  }

  /// `0.0.0.0:23790` and the like take in what is sent to the default address.
  private func endsWithDefault(_ address: String) -> Bool {
    guard let (host, port) = AddressSyntax.hostAndPort(address) else { return false }
    return port == "23790" && ["", "0.0.0.0", "::", "localhost"].contains(host)
  }
}
