/// Writes HTTP/1.1 responses of the metrics, health and live pages.
public struct ResponseWriter: Sendable {
  /// The request was HEAD: the headers of the answer without its body (RFC 9110 section 9.3.2).
  public let isHead: Bool
  /// The connection stays open after the response.
  public let keepsAlive: Bool
  /// The request's minor version: HTTP/1.0 clients have to be told that the connection stays open.
  public let minorVersion: Int

  /// A writer for one response, made by hand, as after a request that could not be read.
  public init(isHead: Bool = false, keepsAlive: Bool = false, minorVersion: Int = 1) {
    self.isHead = isHead
    self.keepsAlive = keepsAlive
    self.minorVersion = minorVersion
  }

  /// A writer for the response to a request. The connection is not kept behind a body, which nobody here reads.
  public init(for request: RequestHead) {
    self.init(
      isHead: request.method == "HEAD", keepsAlive: request.keepsAlive && request.body == .none,
      minorVersion: request.minorVersion)
  }

  /// Appends a whole response. Statuses 1xx, 204 and 304 never have a body.
  ///
  /// - Parameters:
  ///   - status: 100…599; its usual reason phrase is added.
  ///   - contentType: left out if empty or without body.
  ///   - headers: further lines; a line with a name that is no token, or with a control character in its value, is
  ///     left out, because it could end the head early.
  ///   - date: seconds since 1970 for the `Date` line, which RFC 9110 section 6.6.1 asks for.
  public func append(
    status: Int, contentType: String = "", headers: [(name: String, value: String)] = [], date: Int64? = nil,
    body: [UInt8] = [], to output: inout [UInt8]
  ) {
    let hasContent = status >= 200 && status != 204 && status != 304
    output.reserveCapacity(output.count + 256 + body.count)
    output += "HTTP/1.1 \(status) \(Self.reason(status))\r\n".utf8
    if let date { output += "Date: \(HTTPDate.text(secondsSince1970: date))\r\n".utf8 }
    if hasContent {
      if !contentType.isEmpty { Self.append("Content-Type", contentType, to: &output) }
      output += "Content-Length: \(body.count)\r\n".utf8
    }
    for (name, value) in headers { Self.append(name, value, to: &output) }
    if status >= 200 {
      if !keepsAlive { output += "Connection: close\r\n".utf8 }
      if keepsAlive && minorVersion == 0 { output += "Connection: keep-alive\r\n".utf8 }
    }
    output += "\r\n".utf8
    if hasContent && !isHead { output += body }
  }

  private static func append(_ name: String, _ value: String, to output: inout [UInt8]) {
    guard HeaderFields.isToken(Array(name.utf8)[...]),
      value.utf8.allSatisfy({ ($0 >= 0x20 && $0 != 0x7F) || $0 == UInt8(ascii: "\t") })
    else { return }
    output += "\(name): \(value)\r\n".utf8
  }

  /// RFC 9110 section 15; empty for statuses that no page uses.
  private static func reason(_ status: Int) -> String {
    switch status {
    case 100: "Continue"
    case 200: "OK"
    case 204: "No Content"
    case 301: "Moved Permanently"
    case 304: "Not Modified"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 406: "Not Acceptable"
    case 408: "Request Timeout"
    case 413: "Content Too Large"
    case 414: "URI Too Long"
    case 417: "Expectation Failed"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 503: "Service Unavailable"
    case 505: "HTTP Version Not Supported"
    default: ""
    }
  }
}

/// The one date format that HTTP writes (RFC 9110 section 5.6.7).
public enum HTTPDate {
  private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
  private static let months = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  /// For example `Sun, 06 Nov 1994 08:49:37 GMT`. Times outside of the years 1970 to 9999 are moved to the border.
  public static func text(secondsSince1970 seconds: Int64) -> String {
    let seconds = Int(min(max(seconds, 0), 253_402_300_799))
    let (day, rest) = seconds.quotientAndRemainder(dividingBy: 86_400)
    // Years that begin in March have the leap day at their end; 719 468 days lie between 0000-03-01 and 1970.
    let shifted = day + 719_468
    let (era, dayOfEra) = shifted.quotientAndRemainder(dividingBy: 146_097)
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    let dayOfMonth = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
    let month = (monthFromMarch + 2) % 12
    let year = era * 400 + yearOfEra + (month < 2 ? 1 : 0)
    let clock = "\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))"
    return "\(days[day % 7]), \(two(dayOfMonth)) \(months[month]) \(year) \(clock) GMT"
  }

  private static func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
}
