internal import Glibc
internal import Reactor

/// An address to listen on, as the operator wrote it.
struct ListenAddress {
  let text: String
  let host: String
  let address: Address?
  let port: UInt16

  /// A `--listen-addr`: `host:port`, `:port`, `[v6]:port` or `unix:path`. A host name is looked up later.
  init(_ text: String) throws(StartFailure) {
    self.text = text
    if text.hasPrefix("unix:") {
      let path = text.dropFirst(text.hasPrefix("unix://") ? 7 : 5)
      guard let unix = Address(unixPath: String(path)) else {
        throw StartFailure("failed to validate listen address: \(text)")
      }
      (address, host, port) = (unix, "", 0)
      return
    }
    guard let pair = try? HostPort(text), let number = pair.portNumber else {
      throw StartFailure("failed to validate listen address: \(text)")
    }
    host = pair.host
    port = number
    // An empty host is every address of both families, as everywhere else in Go; etcd's gateway refuses it.
    address =
      pair.host.isEmpty ? .v6(high: 0, low: 0, port: number, scope: 0) : Address(ip: pair.host, port: number)
  }

  /// A `--metrics-addr`: a URL with `http://`, a plain `host:port`, or `unix:///path`.
  init(metrics text: String) throws(StartFailure) {
    if text.hasPrefix("https://") {
      throw StartFailure("--metrics-addr is served as plain HTTP: use http:// (\(text))")
    }
    let rest = text.hasPrefix("http://") ? String(text.dropFirst(7)) : text
    let authority = rest.hasPrefix("unix:") ? rest : String(rest.prefix { $0 != "/" })
    do throws(StartFailure) {
      try self.init(authority)
    } catch {
      throw StartFailure("cannot parse \"\(text)\"; --metrics-addr is a URL such as http://127.0.0.1:9379")
    }
  }
}
