internal import Glibc

/// Notices that files were replaced or rewritten, as rotation of certificates does. Asked about once a
/// second.
///
/// Symbolic links are followed: Kubernetes swaps one that leads to the folder with all files.
struct TLSFileWatch {
  private let paths: [String]
  private var known: [Stamp?]
  private var seen: [Stamp?]?

  /// What changes with every way of replacing a file; nil stands for a file that is not there.
  private struct Stamp: Equatable {
    let device: UInt
    let inode: UInt
    let size: Int
    let modified: [Int]
  }

  /// Takes the files as they are now for known: make it before reading them.
  init(_ paths: [String]) {
    self.paths = paths
    known = paths.map(Self.stamp)
  }

  /// True once after a change, in the second look that finds the same: what is still being written, a
  /// certificate whose key comes a moment later, is left alone.
  mutating func poll() -> Bool {
    let now = paths.map(Self.stamp)
    guard now != known else {
      seen = nil
      return false
    }
    guard now == seen else {
      seen = now
      return false
    }
    known = now
    seen = nil
    return true
  }

  private static func stamp(_ path: String) -> Stamp? {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return nil }
    let (written, changed) = (status.st_mtim, status.st_ctim)
    return Stamp(
      device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
      modified: [written.tv_sec, written.tv_nsec, changed.tv_sec, changed.tv_nsec])
  }
}

/// A context that follows its files. A bad file leaves the one before in force.
struct TLSReloader<Context: Sendable> {
  /// What a look at the files came to.
  enum Outcome: Hashable, Sendable {
    case unchanged
    /// `current` is new: for sessions to come.
    case renewed
    /// Why `current` stays; said once a change.
    case failed(String)
  }

  /// What new sessions are made from.
  private(set) var current: Context
  private var watch: TLSFileWatch
  private let load: () throws(TLSFailure) -> Context

  /// - Parameters:
  ///   - paths: the files that `load` reads.
  ///   - load: makes a context from them.
  /// - Throws: what `load` throws.
  init(_ paths: [String], load: @escaping () throws(TLSFailure) -> Context) throws(TLSFailure) {
    watch = TLSFileWatch(paths)
    current = try load()
    self.load = load
  }

  /// Looks whether the files changed, and if so reads them. Once a second.
  mutating func poll() -> Outcome { watch.poll() ? reload() : .unchanged }

  /// Reads the files in any case, as on SIGHUP.
  mutating func reload() -> Outcome {
    do throws(TLSFailure) {
      current = try load()
      return .renewed
    } catch {
      return .failed(error.description)
    }
  }
}
