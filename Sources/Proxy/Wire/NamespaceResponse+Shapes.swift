/// Where the keys are in answers.
extension NamespaceResponse {
  enum Shape: Sendable {
    case range, rangeStream, put, deleteRange, transaction, operation
    case watch, event, keyValue
    case timeToLive, lock, campaign, leader, leaderKey

    /// The answer of a method; `nil` if it holds no keys.
    init?(_ method: EtcdMethod) {
      switch method {
      case .range: self = .range
      case .rangeStream: self = .rangeStream
      case .put: self = .put
      case .deleteRange: self = .deleteRange
      case .txn: self = .transaction
      case .watch: self = .watch
      case .leaseTimeToLive: self = .timeToLive
      case .lock: self = .lock
      case .campaign: self = .campaign
      case .leader, .observe: self = .leader
      default: return nil
      }
    }
  }

  /// What is done with a field of bytes.
  enum Rule: Equatable {
    /// The key of the message, which cannot be without it.
    case key
    /// A key of several, left out if it lies outside.
    case listedKey
    /// What keys were made of: the prefix with something behind it, or nothing.
    case name
    /// A message that is left out if its key lies outside.
    case optional(Shape)
    /// A message without which the one around it says nothing.
    case required(Shape)
  }
}

extension NamespaceResponse.Shape {
  /// What is done with a field; `nil` if it is copied.
  func rule(_ number: Int) -> NamespaceResponse.Rule? {
    if number == keyField { return .key }
    switch (self, number) {
    case (.range, 2): return .optional(.keyValue)
    case (.rangeStream, 1): return .required(.range)
    case (.put, 2): return .optional(.keyValue)
    case (.deleteRange, 3): return .optional(.keyValue)
    case (.transaction, 3): return .required(.operation)
    case (.operation, 1): return .required(.range)
    case (.operation, 2): return .required(.put)
    case (.operation, 3): return .required(.deleteRange)
    case (.operation, 4): return .required(.transaction)
    case (.watch, 11): return .optional(.event)
    case (.event, 2), (.event, 3): return .required(.keyValue)
    case (.timeToLive, 5): return .listedKey
    case (.campaign, 2): return .required(.leaderKey)
    case (.leader, 2): return .required(.keyValue)
    case (.leaderKey, 1): return .name
    default: return nil
    }
  }

  /// The key that the message is about.
  var keyField: Int? {
    switch self {
    case .keyValue: 1
    case .lock, .leaderKey: 2
    default: nil
    }
  }
}
