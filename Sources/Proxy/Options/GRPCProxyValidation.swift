internal import Reactor

extension GRPCProxyOptions {
  /// The order is etcd's (grpc_proxy.go: checkArgs, then startGRPCProxy), with our own checks at the end.
  func firstProblem() -> OptionProblem? {
    registrationProblem() ?? tlsVersionProblem() ?? listenTLSProblem() ?? listenProblem()
      ?? upstreamProblem() ?? metricsProblem() ?? ownProblem().map { OptionProblem($0) }
  }

  // MARK: etcd's checkArgs

  private func registrationProblem() -> OptionProblem? {
    if registers, resolverTTL < 1 {
      return OptionProblem(
        etcd: "invalid resolver-ttl \(resolverTTL)",
        advice: "--resolver-prefix needs --resolver-ttl, in whole seconds, for example --resolver-ttl=60.")
    }
    if !registers, resolverTTL > 0 {
      return OptionProblem(
        etcd: "invalid resolver-prefix \(GoText.quoted(resolverPrefix))",
        advice: "--resolver-ttl needs --resolver-prefix, which says where to register.")
    }
    if registers, advertiseURL.isEmpty {
      return OptionProblem(
        etcd: "invalid advertise-client-url \(GoText.quoted(advertiseURL))",
        advice: "--resolver-prefix needs --advertise-client-url: it is what is registered.")
    }
    return nil
  }

  private func tlsVersionProblem() -> OptionProblem? {
    if autoTLS, selfSignedYears == 0 {
      return OptionProblem(
        etcd: "selfSignedCertValidity is invalid,it should be greater than 0",
        advice: "--auto-tls needs --self-signed-cert-validity of one year or more.")
    }
    if let fault = versionFault("tls-min-version", tlsMinVersion) { return fault }
    if let fault = versionFault("tls-max-version", tlsMaxVersion) { return fault }
    // Without a minimum any maximum will do, also for etcd.
    if let least = leastTLSVersion, let greatest = greatestTLSVersion, least > greatest {
      return OptionProblem(
        etcd: "min version (\(tlsMinVersion)) is greater than max version (\(tlsMaxVersion))",
        advice: "Leave --tls-max-version away to allow the newest.")
    }
    if leastTLSVersion == .v13, !listenCipherSuites.isEmpty {
      return OptionProblem(
        etcd: "cipher suites cannot be configured when only TLS1.3 is enabled",
        advice: "Leave --listen-cipher-suites away, or set --tls-min-version=TLS1.2.")
    }
    return nil
  }

  private func versionFault(_ flag: String, _ text: String) -> OptionProblem? {
    guard !text.isEmpty, TLSVersion(rawValue: text) == nil else { return nil }
    let words = TLSVersion.allCases.map(\.rawValue).joined(separator: ", ")
    return OptionProblem(
      etcd: "\(flag) is invalid: unexpected TLS version \(GoText.quoted(text)) (must be one of: \(words))",
      advice: "Write --\(flag) as it stands in the brackets.")
  }

  // MARK: What etcd finds in the course of its start

  private func listenTLSProblem() -> OptionProblem? {
    if listenCertificateFile.isEmpty != listenKeyFile.isEmpty {
      return pairProblem(
        listenCertificateFile, listenKeyFile, "--cert-file and --key-file belong together: give both.")
    }
    if !listenTrustedCAFile.isEmpty, listenCertificateFile.isEmpty {
      return noCertificateProblem(
        common.listenAddresses.first ?? "", "--trusted-ca-file needs --cert-file and --key-file.")
    }
    if autoTLS, selfSignedYears > Limits.certificateYears {
      return OptionProblem(
        "--self-signed-cert-validity \(selfSignedYears) must be at most \(Limits.certificateYears) years")
    }
    return nil
  }

  private func pairProblem(_ certificate: String, _ key: String, _ advice: String) -> OptionProblem {
    OptionProblem(
      etcd: "KeyFile and CertFile must both be present[key: \(key), cert: \(certificate)]", advice: advice)
  }

  private func noCertificateProblem(_ address: String, _ advice: String) -> OptionProblem {
    OptionProblem(
      etcd: "cannot listen on TLS for \(address): KeyFile and CertFile are not presented", advice: advice)
  }

  private func listenProblem() -> OptionProblem? {
    for address in common.listenAddresses {
      if let fault = AddressSyntax.goListenFault(address) {
        return OptionProblem(
          etcd: fault, advice: "--listen-addr is host:port, for example 127.0.0.1:23790, or unix:/path.")
      }
    }
    return common.listenProblem().map { OptionProblem($0) }
  }

  private func upstreamProblem() -> OptionProblem? {
    if certificateFile.isEmpty != keyFile.isEmpty {
      return pairProblem(certificateFile, keyFile, "--cert and --key belong together: give both.")
    }
    if common.endpoints.isEmpty, common.discoveryDomain.isEmpty {
      return OptionProblem(
        etcd: "etcdclient: no available endpoints", advice: "Set --endpoints or --discovery-srv.")
    }
    for text in common.endpoints {
      do throws(EndpointName.Malformed) {
        _ = try EndpointName(text)
      } catch {
        return OptionProblem(
          etcd: "\(error)",
          advice: "--endpoints are host:port, http:// or https://host:port, unix:/path or unixs:/path.")
      }
    }
    if maxReceiveBytes > 0, maxSendBytes > maxReceiveBytes {
      return OptionProblem(
        etcd:
          "gRPC message recv limit (\(maxReceiveBytes) bytes) must be greater than send limit (\(maxSendBytes) bytes)",
        advice: "Raise --max-recv-bytes or lower --max-send-bytes.")
    }
    return nil
  }

  private func metricsProblem() -> OptionProblem? {
    guard !common.metricsAddress.isEmpty else { return nil }
    do throws(OptionProblem) {
      let url = try MetricsURL(common.metricsAddress)
      guard url.isTLS, !listensWithTLS else { return nil }
      return noCertificateProblem(
        AddressSyntax.rest(of: url.listenAddress, after: "unix:") ?? url.listenAddress,
        "--metrics-addr with https:// or unixs:// needs --cert-file and --key-file.")
    } catch {
      return error
    }
  }

  // MARK: Ours

  private func ownProblem() -> String? {
    if upstreamTimeout <= .zero { return "--upstream-timeout \(upstreamTimeout) must be more than 0s" }
    if autoSyncInterval < .zero {
      return "--endpoints-auto-sync-interval \(autoSyncInterval) must not be negative"
    }
    if namespaceIsStrict, namespace.isEmpty { return "--namespace-strict needs --namespace" }
    // Bytes that are not UTF-8 arrive as this character: keys would end up under another prefix than etcd's.
    for (name, text) in [("namespace", namespace), ("resolver-prefix", resolverPrefix)]
    where text.unicodeScalars.contains("\u{FFFD}") {
      return "--\(name) is not valid UTF-8"
    }
    if cacheBytes < 1 << 20, cache != .off { return "--cache-bytes \(cacheBytes) must be 1048576 or more" }
    if cacheMaxStaleness < .zero { return "--cache-max-staleness \(cacheMaxStaleness) must not be negative" }
    if consistentCache, cache != .watch { return "--consistent-cache needs --cache watch" }
    if bypassPrefixes.contains("") { return "--bypass must not be empty; --cache=off caches nothing" }
    if coverPrefixes.contains("") { return "--watch-cover must not be empty" }
    if coverFrom < 0 || coverFrom == 1 { return "--watch-cover-from \(coverFrom) must be 0, or 2 or more" }
    return balanceProblem() ?? common.firstProblem()
  }

  private func balanceProblem() -> String? {
    let hasWeights = !common.endpointWeights.isEmpty
    if balance == .weighted, !hasWeights, common.discoveryDomain.isEmpty {
      return "--balance weighted needs --endpoint-weights, or --discovery-srv for the weights of SRV records"
    }
    if hasWeights, balance != .weighted {
      return "--endpoint-weights has no effect without --balance weighted"
    }
    return nil
  }
}

extension AddressSyntax {
  /// What is wrong with an address to accept clients on, or nil, in the words of Go's `net.Listen`.
  static func goListenFault(_ address: String) -> String? {
    if let path = rest(of: address, after: "unix:") {
      return pathFault(path).map { "listen unix: \($0)" }
    }
    let pair: HostPort
    do throws(HostPort.Malformed) { pair = try HostPort(address) } catch { return "listen tcp: \(error)" }
    if pair.portNumber != nil { return nil }
    let digits = pair.port.utf8.drop { $0 == Ascii.minus || $0 == Ascii.plus }
    let isNumber = !digits.isEmpty && digits.allSatisfy(Ascii.isDecimal)
    return "listen tcp: address "
      + (isNumber ? "\(pair.port): invalid port" : "tcp/\(pair.port): unknown port")
  }
}
