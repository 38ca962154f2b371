internal import Reactor

extension CoreMessage: ControlMessage {}

/// The gateway's control thread: health checks and the metrics page beside what every server's control thread does.
final class GatewayControl: ControlCore<CoreMessage> {
  private enum Owner {
    static let prober: UInt8 = 1
    static let admin: UInt8 = 2
  }

  private let shared: GatewayShared
  private var prober: Prober?
  private var admin: AdminServer?

  init(kernel: Kernel, shared: GatewayShared, manager: ServiceManager, signals: Int32) {
    self.shared = shared
    let setup = Setup(
      group: shared.group, endpoints: shared.endpoints, admission: shared.admission,
      drainTimeout: shared.options.drainTimeout)
    super.init(kernel: kernel, setup: setup, manager: manager, signals: signals)
  }

  /// Starts checking and serving the metrics page, once the cores run.
  func startServices(adminListener: Int32?) {
    prober = Prober(
      core: self, owner: Owner.prober, shared: shared, tls: try? TLSContext.client(trustedCAFile: nil))
    if let adminListener {
      let pages = GatewayPages(shared: shared) { [unowned self] in endpoints?.table.endpoints ?? [] }
      admin = try? AdminServer(core: self, owner: Owner.admin, listener: adminListener, page: pages.answer)
    }
    started()
  }

  override func endpointsChanged(_ table: EndpointTable) { prober?.watch(table.endpoints) }

  override func reload() { prober?.probeAll() }

  override func completeService(_ completion: Completion) {
    if completion.token.owner == Owner.prober {
      prober?.complete(completion)
    } else {
      admin?.complete(completion)
    }
  }

  override func serviceTimer(_ token: Token) {
    if token.owner == Owner.prober { prober?.tick() } else { admin?.expire(token) }
  }
}
