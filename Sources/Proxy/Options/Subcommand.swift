/// Where a sub-command's word stands among flags.
enum Subcommand {
  /// The arguments without `word` if it is the first of them that is neither flag nor value of a flag, else nil.
  ///
  /// cobra looks for the word before it knows any flag, so that it takes what follows one for its value:
  /// `--insecure-discovery start` has no word. If there is none by that rule, the inner
  /// command's `switches` are taken into account as well, so that etcd's reading is kept and ours is added.
  static func split(_ arguments: [String], word: String, switches: Set<String>) -> [String]? {
    guard
      let place = place(arguments, word: word, switches: [])
        ?? place(arguments, word: word, switches: switches)
    else { return nil }
    return Array(arguments[..<place] + arguments[(place + 1)...])
  }

  private static func place(_ arguments: [String], word: String, switches: Set<String>) -> Int? {
    var skipsValue = false
    for (index, argument) in arguments.enumerated() {
      if skipsValue {
        skipsValue = false
        continue
      }
      let bytes = argument.utf8
      if argument == "--" { return nil }
      if bytes.first == Ascii.minus {
        let isLong = bytes.starts(with: "--".utf8)
        let name = isLong ? String(argument.dropFirst(2)) : argument == "-h" ? "help" : ""
        let isSwitch = switches.contains(name)
        skipsValue = !bytes.contains(Ascii.equals) && !isSwitch && (isLong || bytes.count == 2)
      } else if !bytes.isEmpty {
        return argument == word ? index : nil
      }
    }
    return nil
  }
}
