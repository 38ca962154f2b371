/// Turns one call of the log into one line of bytes, newline included.
struct LogLayout: Sendable {
  let format: LogFormat

  func line(
    _ level: LogLevel, at time: LogTime, caller: LogCaller, message: String, fields: [LogField]
  ) -> [UInt8] {
    var text = LogText()
    text.bytes.reserveCapacity(256)
    switch format {
    case .json: json(&text, level, time, caller, message, fields)
    case .console: console(&text, level, time, caller, message, fields)
    }
    text.append(ascii: "\n")
    return text.bytes
  }

  private func json(
    _ text: inout LogText, _ level: LogLevel, _ time: LogTime, _ caller: LogCaller, _ message: String,
    _ fields: [LogField]
  ) {
    text.append("{\"level\":\"\(level.name)\",\"ts\":\"")
    text.append(time: time)
    text.append("\",\"caller\":")
    text.append(quoted: caller.description)
    text.append(",\"msg\":")
    text.append(quoted: message)
    for field in fields {
      text.append(ascii: ",")
      text.append(field: field, separator: ",", colon: ":")
    }
    text.append(ascii: "}")
  }

  /// Zap leaves everything but the fields unquoted here, and puts blanks after colons and commas
  /// (zapcore/console_encoder.go).
  private func console(
    _ text: inout LogText, _ level: LogLevel, _ time: LogTime, _ caller: LogCaller, _ message: String,
    _ fields: [LogField]
  ) {
    text.append(time: time)
    text.append("\t\(level.name.uppercased())\t\(caller)\t")
    text.append(message)
    for (index, field) in fields.enumerated() {
      text.append(index == 0 ? "\t{" : ", ")
      text.append(field: field, separator: ", ", colon: ": ")
    }
    if !fields.isEmpty { text.append(ascii: "}") }
  }
}

/// Where a line was logged, as `dir/file.swift:line`.
struct LogCaller: CustomStringConvertible, Sendable {
  /// A `#fileID`: `Module/File.swift`, or with folders in between.
  let file: StaticString
  let line: UInt

  /// The last folder stands before the file name; a module has no folder of its own, so its name does, in lower
  /// case like Go's packages.
  var description: String {
    let parts = file.description.split(separator: "/")
    guard let name = parts.last, parts.count > 1 else { return "\(file):\(line)" }
    let folder = parts.count == 2 ? parts[0].lowercased() : String(parts[parts.count - 2])
    return "\(folder)/\(name):\(line)"
  }
}

extension LogText {
  fileprivate mutating func append(field: LogField, separator: String, colon: String) {
    append(quoted: field.key)
    append(colon)
    switch field {
    case .string(_, let value): append(quoted: value)
    case .bytes(_, let value): append(quoted: value)
    case .strings(_, let values): append(list: values, separator: separator)
    case .int(_, let value): append("\(value)")
    case .uint(_, let value): append("\(value)")
    case .double(_, let value): append(number: value)
    case .bool(_, let value): append(value ? "true" : "false")
    case .duration(_, let nanoseconds):
      append(ascii: "\"")
      append(duration: nanoseconds)
      append(ascii: "\"")
    case .error(let error): append(quoted: String(describing: error))
    }
  }

  private mutating func append(list: [String], separator: String) {
    append(ascii: "[")
    for (index, value) in list.enumerated() {
      if index > 0 { append(separator) }
      append(quoted: value)
    }
    append(ascii: "]")
  }
}

extension LogField {
  fileprivate var key: String {
    switch self {
    case .string(let key, _), .bytes(let key, _), .strings(let key, _), .int(let key, _), .uint(let key, _),
      .double(let key, _), .bool(let key, _), .duration(let key, _):
      key
    case .error: "error"
    }
  }
}
