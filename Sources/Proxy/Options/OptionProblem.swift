/// Why a command line that could be read cannot be used.
struct OptionProblem: Error, Equatable {
  /// The reason in one sentence.
  let text: String
  /// What to change, if the text is etcd's own, which does not say it.
  let advice: String?

  /// A reason in our words.
  init(_ text: String) {
    self.text = text
    advice = nil
  }

  /// A reason in etcd's words, which scripts may look for: they get a line of their own, as etcd prints it.
  init(etcd text: String, advice: String) {
    self.text = text
    self.advice = advice
  }

  /// What goes to stderr; `command` is how the command was called, such as `ringway gateway start`.
  func report(_ command: String) -> String {
    if let advice { return "\(text)\n\(advice)\n" }
    return "Error: \(text)\nRun '\(command) --help' for the flags.\n"
  }
}
