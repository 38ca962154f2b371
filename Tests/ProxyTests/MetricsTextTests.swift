import Testing

import Proxy

/// A strict reader of the Prometheus text format, as far as `MetricsText` writes it.
struct Exposition {
  struct Sample: Equatable {
    var name: String
    var labels: [String: String]
    var value: Double
  }
  struct Broken: Error { let why: String }

  var samples: [Sample] = []
  var types: [String: String] = [:]
  var helps: [String: String] = [:]

  init(_ bytes: [UInt8]) throws {
    let text = String(decoding: bytes, as: UTF8.self)
    guard Array(text.utf8) == bytes, text.isEmpty || bytes.last == 10 else { throw Broken(why: "end") }
    var family = ""
    for line in text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
      let line = String(line)
      if line.hasPrefix("# HELP ") {
        let parts = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false).map(
          String.init)
        guard parts.count == 4, helps.updateValue(parts[3], forKey: parts[2]) == nil else {
          throw Broken(why: line)
        }
        family = parts[2]
      } else if line.hasPrefix("# TYPE ") {
        let parts = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 4, parts[2] == family, types.updateValue(parts[3], forKey: family) == nil,
          ["counter", "gauge", "histogram"].contains(parts[3])
        else { throw Broken(why: line) }
      } else {
        let sample = try Self.sample(Array(line.unicodeScalars))
        let suffixes = types[family] == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
        guard suffixes.contains(where: { sample.name == family + $0 }) else {
          throw Broken(why: "stray \(line)")
        }
        guard !samples.contains(where: { $0.name == sample.name && $0.labels == sample.labels }) else {
          throw Broken(why: "twice \(line)")
        }
        samples.append(sample)
      }
    }
  }

  private static func name(_ rest: inout ArraySlice<Unicode.Scalar>) throws -> String {
    let name = rest.prefix {
      $0.isASCII && ($0.properties.isAlphabetic || "0123456789_:".unicodeScalars.contains($0))
    }
    guard let first = name.first, !("0"..."9").contains(first) else { throw Broken(why: "name") }
    rest = rest.dropFirst(name.count)
    return String(String.UnicodeScalarView(name))
  }

  private static func expect(_ scalar: Unicode.Scalar, _ rest: inout ArraySlice<Unicode.Scalar>) throws {
    guard rest.popFirst() == scalar else { throw Broken(why: "no \(scalar)") }
  }

  private static func sample(_ line: [Unicode.Scalar]) throws -> Sample {
    var rest = line[...]
    var sample = Sample(name: try name(&rest), labels: [:], value: 0)
    if rest.first == "{" {
      repeat {
        rest.removeFirst()
        let label = try name(&rest)
        try expect("=", &rest)
        let value = try quoted(&rest)
        guard !label.contains(":"), sample.labels.updateValue(value, forKey: label) == nil else {
          throw Broken(why: "label")
        }
      } while rest.first == ","
      try expect("}", &rest)
    }
    try expect(" ", &rest)
    let text = String(String.UnicodeScalarView(rest))
    guard let value = Double(text), !text.contains(" ") else { throw Broken(why: "value \(text)") }
    sample.value = value
    return sample
  }

  private static func quoted(_ rest: inout ArraySlice<Unicode.Scalar>) throws -> String {
    try expect("\"", &rest)
    var value = String.UnicodeScalarView()
    while let scalar = rest.popFirst(), scalar != "\"" {
      guard scalar == "\\" else {
        value.append(scalar)
        continue
      }
      switch rest.popFirst() {
      case "n": value.append("\n")
      case "\\": value.append("\\")
      case "\"": value.append("\"")
      default: throw Broken(why: "escape")
      }
    }
    guard !rest.isEmpty else { throw Broken(why: "open quote") }
    return String(value)
  }
}

@Suite struct MetricsTextTests {
  @Test func writesTheFormatToTheByte() {
    var text = MetricsText()
    text.family("a_total", .counter, help: "Things\nseen \\ \"counted\".")
    text.sample(.max)
    text.family("b", .gauge, help: "")
    text.sample(labels: [("x", "1"), ("y", "q\"\\\n\u{E9}")], number: -0.5)
    #expect(
      String(decoding: text.bytes, as: UTF8.self) == #"""
        # HELP a_total Things\nseen \\ "counted".
        # TYPE a_total counter
        a_total 18446744073709551615
        # HELP b \#("")
        # TYPE b gauge
        b{x="1",y="q\"\\\né"} -0.5

        """#)
  }

  @Test func histogramsAreCumulative() {
    var histogram = Histogram(bounds: [0.001, 1, 2.5])
    for value in [0.0005, 0.001, 0.5, 1, 2, 10] { histogram.observe(value) }
    var text = MetricsText()
    text.family("d_seconds", .histogram, help: "Took.")
    text.sample(labels: [("method", "Range")], histogram)
    #expect(
      String(decoding: text.bytes, as: UTF8.self) == """
        # HELP d_seconds Took.
        # TYPE d_seconds histogram
        d_seconds_bucket{method="Range",le="0.001"} 2
        d_seconds_bucket{method="Range",le="1"} 4
        d_seconds_bucket{method="Range",le="2.5"} 5
        d_seconds_bucket{method="Range",le="+Inf"} 6
        d_seconds_sum{method="Range"} 13.5015
        d_seconds_count{method="Range"} 6

        """)
  }

  @Test func aStrictReaderAgrees() throws {
    let odd = [
      "", "a", "\\", "\"", "\n", "\\n", "a\"b\\c\nd", "}", ",x=\"y\"", "\u{1F300}\u{301}", "\r\n", " # HELP",
    ]
    var text = MetricsText()
    text.family("odd:labels", .gauge, help: odd.joined())
    for (index, value) in odd.enumerated() {
      text.sample(labels: [("v", value), ("_i", "\(index)")], UInt64(index))
    }
    let numbers = [0, -0.0, 1, -1, 1e15, 1e300, 5e-300, 0.1, .infinity, -.infinity, 123_456_789.25, 1e-5]
    text.family("numbers", .gauge, help: "n")
    for (index, number) in numbers.enumerated() { text.sample(labels: [("i", "\(index)")], number: number) }
    text.family("nan", .gauge, help: "n")
    text.sample(number: .nan)
    var histogram = Histogram(bounds: [1e-6, 0.1])
    histogram.observe(0.05)
    text.family("h", .histogram, help: "h")
    text.sample(histogram)
    text.sample(labels: [("a", "b")], histogram)

    let read = try Exposition(text.bytes)
    #expect(read.types == ["odd:labels": "gauge", "numbers": "gauge", "nan": "gauge", "h": "histogram"])
    #expect(read.samples.prefix(odd.count).map { $0.labels["v"] } == odd)
    #expect(read.samples.filter { $0.name == "numbers" }.map(\.value) == numbers)
    #expect(read.samples.filter { $0.name == "nan" }.map(\.value.isNaN) == [true])
    let buckets = read.samples.filter { $0.name == "h_bucket" && $0.labels["a"] == nil }
    #expect(buckets.map { $0.labels["le"].flatMap(Double.init) } == [1e-6, 0.1, .infinity])
    #expect(buckets.map(\.value) == [0, 1, 1])
  }
}
