/// Where the keys are in requests.
extension NamespaceRequest {
  enum Shape: Sendable {
    case range, put, deleteRange, transaction, compare, operation
    case watch, watchCreate
    case lock, unlock, campaign, leader, leaderKey, leaderKeyHolder
    /// Nothing in it is looked at.
    case opaque

    /// The request of a method; `nil` if it holds no keys.
    init?(_ method: EtcdMethod) {
      switch method {
      case .range, .rangeStream: self = .range
      case .put: self = .put
      case .deleteRange: self = .deleteRange
      case .txn: self = .transaction
      case .watch: self = .watch
      case .lock: self = .lock
      case .unlock: self = .unlock
      case .campaign: self = .campaign
      case .leader, .observe: self = .leader
      case .proclaim, .resign: self = .leaderKeyHolder
      default: return nil
      }
    }
  }

  /// What is done with a field.
  enum Rule {
    case copy
    /// A key: must not be empty in the end.
    case key
    case rangeEnd
    /// A name that keys are made of by appending to it: may be empty.
    case name
    case lease
    /// A member of a repeated field.
    case element(Shape)
    /// A message that is not repeated.
    case merged(Shape)
  }
}

extension NamespaceRequest.Shape {
  /// What is done with a field. One that is not written as its type asks is not that field to any decoder.
  func rule(_ field: ProtoField) -> NamespaceRequest.Rule {
    if field.wire == .varint { return field.number == leaseField ? .lease : .copy }
    guard field.wire == .bytes else { return .copy }
    if field.number == keyField { return .key }
    if field.number == nameField { return .name }
    if field.number == rangeEndField { return .rangeEnd }
    switch (self, field.number) {
    case (.transaction, 1): return .element(.compare)
    case (.transaction, 2), (.transaction, 3): return .element(.operation)
    case (.leaderKeyHolder, 1): return .merged(.leaderKey)
    default: return .copy
    }
  }

  var keyField: Int? {
    switch self {
    case .range, .put, .deleteRange, .watchCreate, .unlock: 1
    case .leaderKey: 2
    case .compare: 3
    default: nil
    }
  }

  var rangeEndField: Int? {
    switch self {
    case .range, .deleteRange, .watchCreate: 2
    case .compare: 64
    default: nil
    }
  }

  var nameField: Int? {
    switch self {
    case .lock, .campaign, .leader, .leaderKey: 1
    default: nil
    }
  }

  /// The lease that the call attaches a key to, or that the server keeps alive while the call lasts.
  var leaseField: Int? {
    switch self {
    case .lock, .campaign: 2
    case .put: 3
    case .leaderKey: 4
    default: nil
    }
  }

  /// The members of a message that is nothing but a choice.
  var members: ClosedRange<Int>? {
    switch self {
    case .operation: 1...4
    case .watch: 1...3
    default: nil
    }
  }

  /// What a member of the choice is.
  func member(_ number: Int) -> Self {
    switch (self, number) {
    case (.operation, 1): .range
    case (.operation, 2): .put
    case (.operation, 3): .deleteRange
    case (.operation, 4): .transaction
    case (.watch, 1): .watchCreate
    default: .opaque
    }
  }
}
