/// A point on the monotonic clock in nanoseconds. Protocol code gets it passed in and never reads a clock.
public struct Instant: Comparable, Hashable, Sendable {
  /// Nanoseconds since an arbitrary start (boot, or the start of a simulation).
  public let nanoseconds: UInt64

  /// Nanoseconds since an arbitrary start.
  @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// Farther away than any timer may ask for.
  public static let distantFuture = Instant(nanoseconds: .max)

  /// Earlier.
  @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }

  /// The instant `span` later; saturates at `distantFuture`.
  @inlinable public static func + (instant: Instant, span: Span) -> Instant {
    let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(span.nanoseconds)
    return overflow ? .distantFuture : Instant(nanoseconds: sum)
  }

  /// Time passed since `earlier`; zero if `earlier` lies in the future.
  @inlinable public static func - (instant: Instant, earlier: Instant) -> Span {
    Span(
      nanoseconds: instant.nanoseconds > earlier.nanoseconds ? instant.nanoseconds - earlier.nanoseconds : 0)
  }

  /// A length of time, never negative.
  public struct Span: Comparable, Hashable, Sendable {
    /// Length in nanoseconds.
    public let nanoseconds: UInt64
    /// Length in nanoseconds.
    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    /// Nothing at all.
    public static let zero = Span(nanoseconds: 0)
    /// A span of whole milliseconds.
    @inlinable public static func milliseconds(_ count: UInt64) -> Span {
      Span(nanoseconds: count &* 1_000_000)
    }
    /// A span of whole seconds.
    @inlinable public static func seconds(_ count: UInt64) -> Span {
      Span(nanoseconds: count &* 1_000_000_000)
    }
    /// Shorter.
    @inlinable public static func < (a: Span, b: Span) -> Bool { a.nanoseconds < b.nanoseconds }
    /// The span as seconds with fraction, for logs and metrics.
    @inlinable public var seconds: Double { Double(nanoseconds) / 1e9 }
  }
}
