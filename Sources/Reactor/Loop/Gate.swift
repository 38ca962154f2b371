/// Counts what is in flight, so that a shutdown knows exactly when nothing is left.
///
/// Each operation enters before it starts and leaves when its last completion has come. Once closed, nothing
/// new gets in, and the owner may free what operations use as soon as the gate is drained. Belongs to one core.
public struct Gate: ~Copyable {
  private var inFlight = 0

  /// Whether `close` has been called.
  public private(set) var isClosed = false

  /// Open, and nothing in flight.
  public init() {}

  /// Counts one operation in. False once the gate is closed: the operation must not start.
  public mutating func enter() -> Bool {
    guard !isClosed else { return false }
    inFlight += 1
    return true
  }

  /// Counts one operation out. Traps when there is none: somebody left twice, and whoever is still inside would
  /// lose their memory too early.
  public mutating func leave() {
    precondition(inFlight > 0, "a gate was left more often than entered")
    inFlight -= 1
  }

  /// Lets nobody in from now on. Harmless when repeated.
  public mutating func close() { isClosed = true }

  /// Closed and empty: what the operations used may be freed.
  public var isDrained: Bool { isClosed && inFlight == 0 }

  deinit { precondition(inFlight == 0, "a gate was destroyed with operations in flight") }
}
