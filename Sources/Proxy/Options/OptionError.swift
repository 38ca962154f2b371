/// A value or an argument of the command line that cannot be used.
public struct OptionError: Error, Equatable {
  /// One sentence for the person who typed it; etcd's own words wherever etcd has the same error.
  public let text: String

  /// An error that says `text`.
  public init(_ text: String) { self.text = text }
}
