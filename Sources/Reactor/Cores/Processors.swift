internal import CUring
internal import Glibc

/// The processors this process may use.
public enum Processors {
  /// The processors of the affinity mask, at most 1,024.
  public static var allowed: [Int32] {
    var cpus = [Int32](repeating: 0, count: 1024)
    let count = unsafe cpus.withUnsafeMutableBufferPointer {
      unsafe rw_allowed_cpus($0.baseAddress, Int32($0.count))
    }
    return count > 0 ? Array(cpus[..<Int(count)]) : [0]
  }

  /// How many threads are worth starting: the affinity mask, or less where a cgroup quota allows less.
  ///
  /// - Parameter root: where `/sys/fs/cgroup` and `/proc/self/cgroup` are looked for; tests give a folder of their own.
  public static func usable(root: String = "") -> Int {
    min(allowed.count, quota(root: root) ?? .max)
  }

  /// The cgroup's CPU quota in whole processors, rounded up; nil when there is none. Both cgroup versions.
  static func quota(root: String) -> Int? {
    let paths = groups(root: root)
    var least: Int?
    for (controller, path) in paths {
      // A quota may stand on any level above; the smallest one holds.
      var level = path
      while true {
        let quota =
          controller.isEmpty
          ? unified(text(root + "/sys/fs/cgroup" + level + "/cpu.max"))
          : legacy(
            quota: text(root + "/sys/fs/cgroup/cpu" + level + "/cpu.cfs_quota_us"),
            period: text(root + "/sys/fs/cgroup/cpu" + level + "/cpu.cfs_period_us"))
        if let quota { least = min(least ?? quota, quota) }
        guard let slash = level.lastIndex(of: "/") else { break }
        level = String(level[..<slash])
      }
    }
    return least
  }

  /// `/proc/self/cgroup`: the version 2 line (`0::/path`) and the one of version 1's cpu controller.
  private static func groups(root: String) -> [(controller: String, path: String)] {
    text(root + "/proc/self/cgroup").split(separator: "\n").compactMap { line in
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { return nil }
      let controllers = parts[1].split(separator: ",")
      guard parts[1].isEmpty || controllers.contains("cpu") else { return nil }
      let path = parts[2] == "/" ? "" : String(parts[2])
      return (String(parts[1]), path)
    }
  }

  private static func unified(_ text: String) -> Int? {
    let parts = text.split { $0 == " " || $0 == "\n" }
    guard parts.count >= 2, let quota = Int(parts[0]), let period = Int(parts[1]) else { return nil }
    return whole(quota, period)
  }

  private static func legacy(quota: String, period: String) -> Int? {
    guard let quota = Int(quota.split(separator: "\n").first ?? ""), quota > 0,
      let period = Int(period.split(separator: "\n").first ?? "")
    else { return nil }
    return whole(quota, period)
  }

  private static func whole(_ quota: Int, _ period: Int) -> Int? {
    guard quota > 0, period > 0 else { return nil }
    return max(1, quota / period + (quota % period > 0 ? 1 : 0))
  }

  private static func text(_ path: String) -> String {
    let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return "" }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 16384)
    let count = unsafe bytes.withUnsafeMutableBytes { unsafe read(file, $0.baseAddress, $0.count) }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : ""
  }
}
