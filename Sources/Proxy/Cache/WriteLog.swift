internal import Glibc
internal import Reactor

/// The writes of late, so that an answer that is older than one of them does not get into the cache behind it.
///
/// Of writes that have been pushed out only the newest revision is known: answers older than that are refused whatever
/// they are about. A write that may have happened has no revision; it bars the answers of reads that had been sent.
struct WriteLog {
  private struct Record {
    var offset: Int
    var startCount: Int
    var endCount: Int
    var kind: SpanKind
    /// Of the store after the write; nil if nobody knows whether it was made.
    var revision: Int64?
    var sequence: UInt64
  }

  private var bytes = [UInt8](repeating: 0, count: Limits.cacheLogBytes)
  private var records: [Record] = []
  /// Where the oldest record is, in a full ring, and where the next bytes go.
  private var oldest = 0
  private var head = 0
  /// The newest revision of those in the log.
  private var newest: Int64 = 0
  private var newestUnknown: UInt64 = 0
  /// What has been forgotten.
  private var forgotten: Int64 = 0
  private var forgottenUnknown: UInt64 = 0

  init() { records.reserveCapacity(Limits.cacheLogRecords) }

  /// All keys may have been written.
  mutating func addEverything(_ revision: Int64?, _ sequence: UInt64) {
    if let revision { forgotten = max(forgotten, revision) } else { forgottenUnknown = sequence }
  }

  mutating func add(_ span: SpanView, _ revision: Int64?, _ sequence: UInt64) {
    let endCount = span.kind == .bounded ? unsafe span.end.count : 0
    let startCount = unsafe span.start.count
    guard startCount + endCount <= bytes.count / 16 else { return addEverything(revision, sequence) }
    if head + startCount + endCount > bytes.count {
      // Those that lie behind are of the round before.
      while let first, first.offset >= head { forgetFirst() }
      head = 0
    }
    let range = head..<head + startCount + endCount
    // Records lie in the order of the ring, so those in the way are the oldest.
    while let first, records.count - oldest == Limits.cacheLogRecords / 2 || liesIn(first, range) {
      forgetFirst()
    }
    unsafe copy(span.start, to: head)
    if endCount > 0 { unsafe copy(span.end, to: head + startCount) }
    let record = Record(
      offset: head, startCount: startCount, endCount: endCount, kind: span.kind, revision: revision,
      sequence: sequence)
    records.append(record)
    head += startCount + endCount
    if let revision { newest = max(newest, revision) } else { newestUnknown = sequence }
  }

  /// Whether an answer of this revision, of a read that was sent at `sequence`, shows all that was written to its keys.
  func admits(_ span: SpanView, _ revision: Int64, sentAt sequence: UInt64) -> Bool {
    guard revision >= forgotten, sequence >= forgottenUnknown else { return false }
    if revision >= newest, sequence >= newestUnknown { return true }
    for record in records[oldest...] {
      let isOlder = record.revision.map { $0 <= revision } ?? (record.sequence <= sequence)
      if !isOlder, view(record, { span.overlaps($0) }) { return false }
    }
    return true
  }

  private var first: Record? { oldest < records.count ? records[oldest] : nil }

  private func liesIn(_ record: Record, _ range: Range<Int>) -> Bool {
    record.offset < range.upperBound && record.offset + record.startCount + record.endCount > range.lowerBound
  }

  private mutating func forgetFirst() {
    let record = records[oldest]
    if let revision = record.revision {
      forgotten = max(forgotten, revision)
    } else {
      forgottenUnknown = max(forgottenUnknown, record.sequence)
    }
    oldest += 1
    // Moved down now and then, so that the array stays where it is.
    guard oldest == records.count || oldest == Limits.cacheLogRecords / 2 else { return }
    records.removeSubrange(..<oldest)
    oldest = 0
  }

  private mutating func copy(_ source: UnsafeRawBufferPointer, to offset: Int) {
    unsafe bytes.withUnsafeMutableBytes { room in
      unsafe UnsafeMutableRawBufferPointer(rebasing: room[offset...]).copyMemory(from: source)
    }
  }

  private func view<Result>(_ record: Record, _ body: (SpanView) -> Result) -> Result {
    unsafe bytes.withUnsafeBytes { bytes in
      let middle = record.offset + record.startCount
      return unsafe body(
        SpanView(
          record.kind, UnsafeRawBufferPointer(rebasing: bytes[record.offset..<middle]),
          UnsafeRawBufferPointer(rebasing: bytes[middle..<middle + record.endCount])))
    }
  }
}
