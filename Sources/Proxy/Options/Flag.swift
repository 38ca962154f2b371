/// A set of options that has defaults and can be filled by flags.
public protocol FlagOptions: Sendable {
  /// The defaults.
  init()
}

/// One flag: its name, what help says, and where its value goes.
public struct Flag<Options: FlagOptions>: Sendable {
  /// The name, without dashes.
  public let name: String
  /// What it does, in what unit, and when to change it: one line.
  public let usage: String
  let valueName: String
  let implied: String?
  let choices: [String]
  let defaultText: String?
  let assign: @Sendable (inout Options, String, Bool) throws(OptionError) -> Void

  /// A flag that fills the option at `path`; the default help shows is the one of `Options()`.
  public init<Value: FlagValue>(
    _ name: String, _ path: any (WritableKeyPath<Options, Value> & Sendable), _ usage: String
  ) {
    self.name = name
    self.usage = usage
    valueName = Value.valueName
    implied = Value.implied
    choices = Value.choices
    defaultText = Options()[keyPath: path].helpText
    assign = { (options: inout Options, text: String, first: Bool) throws(OptionError) in
      try options[keyPath: path].assign(text, first: first)
    }
  }
}

/// Flags that help shows under one title.
public struct FlagGroup<Options: FlagOptions>: Sendable {
  /// The title, without colon.
  public let title: String
  /// The flags in the order help shows them.
  public let flags: [Flag<Options>]

  /// A group of `flags` under `title`.
  public init(_ title: String, _ flags: [Flag<Options>]) {
    self.title = title
    self.flags = flags
  }
}

/// Options of a command that has none.
public struct NoOptions: FlagOptions {
  /// Nothing.
  public init() {}
}
