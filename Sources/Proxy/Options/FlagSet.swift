/// What one command line contained beside the values.
public struct ParsedFlags: Equatable, Sendable {
  /// Names of the flags that were given, whatever their value.
  public var explicit: Set<String> = []
  /// Whether `-h` or `--help` was given (and not as `--help=false`).
  public var wantsHelp = false
  /// The arguments that are neither flags nor values of flags.
  public var positional: [String] = []
}

/// The flags of one command: parses arguments and prints help as Go's pflag and cobra do, on which etcd's command
/// line is built. Long flags `--name value` and `--name=value`; switches `--name` and `--name=false`; `--` ends the
/// flags; every command has `-h` and `--help`, which is the only short flag there is.
public struct FlagSet<Options: FlagOptions>: Sendable {
  /// The last word of the command, for the help text of `--help`.
  public let command: String
  /// The flags by title. `--help` joins the first group, in its place by name.
  public let groups: [FlagGroup<Options>]

  /// The flags of `command`.
  public init(command: String, groups: [FlagGroup<Options>] = [FlagGroup("Flags", [])]) {
    self.command = command
    self.groups = groups
  }

  /// The names of all flags that need no argument.
  var switches: Set<String> {
    Set(groups.flatMap(\.flags).filter { $0.implied != nil }.map(\.name) + [helpName])
  }

  private var helpName: String { "help" }

  /// Takes `arguments` (without the words of the command) over into `options`, in order. Throws pflag's text at the
  /// first bad flag; `options` then holds whatever came before it.
  public func parse(_ arguments: [String], into options: inout Options) throws(OptionError) -> ParsedFlags {
    var rest = arguments[...]
    var parsed = ParsedFlags()
    while let argument = rest.popFirst() {
      let bytes = argument.utf8
      if argument == "--" {
        parsed.positional += rest
        break
      } else if bytes.starts(with: "--".utf8) {
        try parseLong(argument, &rest, &parsed, &options)
      } else if bytes.first == Ascii.minus, bytes.count > 1 {
        try parseShort(argument, &parsed)
      } else {
        parsed.positional.append(argument)
      }
    }
    return parsed
  }

  private func parseLong(
    _ argument: String, _ rest: inout ArraySlice<String>, _ parsed: inout ParsedFlags,
    _ options: inout Options
  ) throws(OptionError) {
    let body = Substring(argument.utf8.dropFirst(2))
    if body.utf8.first == Ascii.minus || body.utf8.first == Ascii.equals {
      throw OptionError("bad flag syntax: \(argument)")
    }
    let nameEnd = body.utf8.firstIndex(of: Ascii.equals)
    let name = String(Substring(body.utf8.prefix(upTo: nameEnd ?? body.endIndex)))
    let attached = nameEnd.map { String(Substring(body.utf8.suffix(from: $0).dropFirst())) }
    if name == helpName {
      parsed.wantsHelp = try helpValue(attached ?? "true")
      return
    }
    guard let flag = flag(name) else { throw OptionError("unknown flag: --\(name)") }
    guard let value = attached ?? flag.implied ?? rest.popFirst() else {
      throw OptionError("flag needs an argument: --\(name)")
    }
    let first = parsed.explicit.insert(name).inserted
    do throws(OptionError) {
      try flag.assign(&options, value, first)
    } catch {
      throw OptionError("invalid argument \(GoText.quoted(value)) for \"--\(name)\" flag: \(error.text)")
    }
  }

  /// Short flags may be bundled, and there is only `-h`: anything else is the first unknown one of the bundle.
  private func parseShort(_ argument: String, _ parsed: inout ParsedFlags) throws(OptionError) {
    var bundle = argument.unicodeScalars.dropFirst()
    while let letter = bundle.first {
      guard letter == "h" else {
        throw OptionError("unknown shorthand flag: \(GoText.quoted(letter)) in -\(String(bundle))")
      }
      bundle = bundle.dropFirst()
      if bundle.first == "=", bundle.dropFirst().first != nil {
        parsed.wantsHelp = try helpValue(String(bundle.dropFirst()))
        return
      }
      parsed.wantsHelp = true
    }
  }

  private func helpValue(_ text: String) throws(OptionError) -> Bool {
    do throws(OptionError) {
      return try GoText.boolean(text)
    } catch {
      throw OptionError("invalid argument \(GoText.quoted(text)) for \"-h, --help\" flag: \(error.text)")
    }
  }

  private func flag(_ name: String) -> Flag<Options>? {
    for group in groups {
      if let flag = group.flags.first(where: { $0.name == name }) { return flag }
    }
    return nil
  }
}

extension FlagSet {
  /// All groups as help shows them: one line per flag, the texts of a group in one column, defaults in brackets.
  /// Ends with a line end; groups are a blank line apart.
  public var usage: String {
    groups.enumerated().map { index, group in
      var rows = group.flags.map(row)
      if index == 0 {
        let place = group.flags.firstIndex { $0.name > helpName } ?? rows.count
        rows.insert(("  -h, --help", "help for \(command)"), at: place)
      }
      let width = rows.map(\.head.count).max() ?? 0
      let lines = rows.map { row in
        row.head + String(repeating: " ", count: width - row.head.count + 3) + row.text + "\n"
      }
      return group.title + ":\n" + lines.joined()
    }.joined(separator: "\n")
  }

  private func row(_ flag: Flag<Options>) -> (head: String, text: String) {
    let head = "      --\(flag.name)" + (flag.valueName.isEmpty ? "" : " \(flag.valueName)")
    let choices = flag.choices.isEmpty ? "" : " [\(flag.choices.joined(separator: "|"))]"
    let standard = flag.defaultText.map { " (default \($0))" } ?? ""
    return (head, flag.usage + choices + standard)
  }
}
