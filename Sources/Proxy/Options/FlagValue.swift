/// A type that a flag can fill from the command line.
public protocol FlagValue: Sendable {
  /// The word help shows for the argument; empty if the flag takes none.
  static var valueName: String { get }
  /// What the flag means when it stands alone; nil if it must have an argument.
  static var implied: String? { get }
  /// The words the flag takes, if it takes only these.
  static var choices: [String] { get }
  /// The value as help shows it as a default; nil for a value that says nothing (empty, zero, false).
  var helpText: String? { get }
  /// Takes over one use of the flag; `first` is false from the second use on.
  /// Throws the reason why the text is no such value.
  mutating func assign(_ text: String, first: Bool) throws(OptionError)
}

extension FlagValue {
  /// Most flags must have an argument.
  public static var implied: String? { nil }
  /// Most flags are not bound to a set of words.
  public static var choices: [String] { [] }
}

extension String: FlagValue {
  /// pflag's type word.
  public static var valueName: String { "string" }
  /// Quoted, as pflag does for texts.
  public var helpText: String? { isEmpty ? nil : GoText.quoted(self) }
  /// Any text will do; the last use counts.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) { self = text }
}

extension Bool: FlagValue {
  /// A switch takes no detached argument.
  public static var valueName: String { "" }
  /// `--name` alone switches on.
  public static var implied: String? { "true" }
  /// Shown only if the switch is on from the start.
  public var helpText: String? { self ? "true" : nil }
  /// Takes the words of Go's `strconv.ParseBool`.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    self = try GoText.boolean(text)
  }
}

extension Int: FlagValue {
  /// pflag's type word.
  public static var valueName: String { "int" }
  /// Shown unless zero.
  public var helpText: String? { self == 0 ? nil : "\(self)" }
  /// Takes the notations of Go's `strconv.ParseInt` with base 0.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    self = try GoText.integer(text)
  }
}

extension UInt: FlagValue {
  /// pflag's type word.
  public static var valueName: String { "uint" }
  /// Shown unless zero.
  public var helpText: String? { self == 0 ? nil : "\(self)" }
  /// Takes the notations of Go's `strconv.ParseUint` with base 0.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    self = try GoText.unsigned(text)
  }
}

extension UInt32: FlagValue {
  /// pflag's type word.
  public static var valueName: String { "uint32" }
  /// Shown unless zero.
  public var helpText: String? { self == 0 ? nil : "\(self)" }
  /// Takes the notations of Go's `strconv.ParseUint` with base 0.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    self = try GoText.unsigned(text)
  }
}

extension GoDuration: FlagValue {
  /// pflag's type word.
  public static var valueName: String { "duration" }
  /// Shown unless zero.
  public var helpText: String? { self == .zero ? nil : description }
  /// Takes Go's duration syntax.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    self = try GoDuration(parsing: text)
  }
}

/// A type of which a flag can take a list.
public protocol FlagListElement: Sendable {
  /// The word help shows for a list of these.
  static var listPlaceholder: String { get }
  /// The element as help shows it.
  var listText: String { get }
  /// The elements of one flag argument. Throws the reason why it is no such list.
  static func elements(_ text: String) throws(OptionError) -> [Self]
}

extension String: FlagListElement {
  /// pflag's type word for `[]string`.
  public static var listPlaceholder: String { "strings" }
  /// The text itself.
  public var listText: String { self }
  /// One CSV record; an empty text is an empty list.
  public static func elements(_ text: String) throws(OptionError) -> [String] {
    text.isEmpty ? [] : try CSVRecord.fields(text)
  }
}

extension Int: FlagListElement {
  /// pflag's type word for `[]int`.
  public static var listPlaceholder: String { "ints" }
  /// In decimal.
  public var listText: String { "\(self)" }
  /// Decimal numbers between commas, none of them left out.
  public static func elements(_ text: String) throws(OptionError) -> [Int] {
    var numbers: [Int] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      numbers.append(try GoText.decimal(String(part)))
    }
    return numbers
  }
}

extension Array: FlagValue where Element: FlagListElement {
  /// The element's word for lists.
  public static var valueName: String { Element.listPlaceholder }
  /// In brackets, unless empty.
  public var helpText: String? { isEmpty ? nil : "[\(map(\.listText).joined(separator: ","))]" }
  /// The first use replaces the default, later ones append, as pflag's slices do.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    let added = try Element.elements(text)
    self = first ? added : self + added
  }
}

/// A choice out of a few words: an enum whose raw values are the words.
public protocol FlagChoice: FlagValue, CaseIterable, RawRepresentable where RawValue == String {}

extension FlagChoice {
  /// For the command line a choice is a text.
  public static var valueName: String { "string" }
  /// All the words.
  public static var choices: [String] { allCases.map(\.rawValue) }
  /// Quoted, as pflag does for texts.
  public var helpText: String? { GoText.quoted(rawValue) }
  /// Takes exactly one of the words.
  public mutating func assign(_ text: String, first: Bool) throws(OptionError) {
    guard let choice = Self(rawValue: text) else {
      throw OptionError("must be one of \(Self.choices.joined(separator: ", "))")
    }
    self = choice
  }
}
