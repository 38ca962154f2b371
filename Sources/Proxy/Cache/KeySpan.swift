internal import Glibc

/// The keys that a request names: one, those from `start` up to but without `end`, or all from `start` on.
///
/// Every interval of the cache is brought into this form once, on entry, so that etcd's spelling of "no end" (a single 00)
/// is never taken for a key.
enum SpanKind: UInt8, Sendable {
  case single, bounded, open
}

/// Such keys, as a view of bytes that somebody else keeps.
@safe struct SpanView {
  let kind: SpanKind
  let start: UnsafeRawBufferPointer
  let end: UnsafeRawBufferPointer

  init(_ kind: SpanKind, _ start: UnsafeRawBufferPointer, _ end: UnsafeRawBufferPointer) {
    self.kind = kind
    unsafe self.start = start
    unsafe self.end = end
  }

  /// One key.
  init(key: UnsafeRawBufferPointer) {
    unsafe self.init(.single, key, UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// Of etcd's fields; nil where there is nothing between them, which is etcd's to judge.
  init?(key: UnsafeRawBufferPointer, rangeEnd: UnsafeRawBufferPointer) {
    guard key.count > 0 else { return nil }
    unsafe start = key
    unsafe end = rangeEnd
    if rangeEnd.count == 0 {
      kind = .single
    } else if unsafe rangeEnd.count == 1 && rangeEnd[0] == 0 {
      kind = .open
    } else {
      guard unsafe Self.isLess(key, rangeEnd) else { return nil }
      kind = .bounded
    }
  }

  static func compare(_ one: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer) -> Int {
    let common = min(one.count, other.count)
    if common > 0, let first = one.baseAddress, let second = other.baseAddress {
      let order = unsafe memcmp(first, second, common)
      if order != 0 { return Int(order) }
    }
    return one.count - other.count
  }

  static func isLess(_ one: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer) -> Bool {
    unsafe compare(one, other) < 0
  }

  /// Whether the end lies behind `key`.
  func reaches(_ key: UnsafeRawBufferPointer) -> Bool {
    switch kind {
    case .single: unsafe !Self.isLess(start, key)
    case .bounded: unsafe Self.isLess(key, end)
    case .open: true
    }
  }

  /// Whether a key belongs to both.
  func overlaps(_ other: SpanView) -> Bool {
    unsafe reaches(other.start) && other.reaches(start)
  }

  /// Whether the end of `other` lies behind this one's, or in the same place.
  func endsBefore(_ other: SpanView) -> Bool {
    switch (kind, other.kind) {
    case (.open, _): false
    case (_, .open): true
    case (.single, _): unsafe other.reaches(start)
    case (.bounded, .bounded): unsafe !Self.isLess(other.end, end)
    // The end of a single key lies directly behind it.
    case (.bounded, .single): unsafe !Self.isLess(other.start, end)
    }
  }
}

/// Such keys, kept.
struct KeySpan: Hashable, Sendable {
  let kind: SpanKind
  let start: [UInt8]
  let end: [UInt8]

  init(_ kind: SpanKind, _ start: [UInt8], _ end: [UInt8]) {
    self.kind = kind
    self.start = start
    self.end = end
  }

  init(_ raw: SpanView) {
    kind = raw.kind
    start = unsafe Array(raw.start)
    end = raw.kind == .bounded ? unsafe Array(raw.end) : []
  }

  /// All keys that begin with `prefix`; an empty one is that of all keys.
  init(prefix: [UInt8]) {
    let last = RangeRequest.end(ofPrefix: prefix)
    start = prefix.isEmpty ? [0] : prefix
    kind = last == [0] ? .open : .bounded
    end = kind == .open ? [] : last
  }

  /// The `range_end` that names these keys.
  var rangeEnd: [UInt8] { kind == .open ? [0] : end }

  func withRaw<Result>(_ body: (SpanView) -> Result) -> Result {
    unsafe start.withUnsafeBytes { start in
      unsafe end.withUnsafeBytes { end in unsafe body(SpanView(kind, start, end)) }
    }
  }

  func overlaps(_ other: SpanView) -> Bool { withRaw { $0.overlaps(other) } }

  func endsBefore(_ other: KeySpan) -> Bool {
    withRaw { one in other.withRaw { one.endsBefore($0) } }
  }

  /// A total order, by the start first; 0 for the same keys.
  func compare(_ other: SpanView) -> Int {
    withRaw { own in
      let order = unsafe SpanView.compare(own.start, other.start)
      if order != 0 { return order }
      if own.kind != other.kind { return Int(own.kind.rawValue) - Int(other.kind.rawValue) }
      return own.kind == .bounded ? unsafe SpanView.compare(own.end, other.end) : 0
    }
  }
}
