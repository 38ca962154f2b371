import Glibc
import Testing

@testable import Reactor

@Suite struct ProcessorsTests {
  @Test func withoutAQuotaTheAffinityMaskCounts() throws {
    let root = try Folder(["proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"])
    #expect(Processors.quota(root: root.path) == nil)
    #expect(Processors.usable(root: root.path) == Processors.allowed.count)
  }

  @Test func aQuotaIsRoundedUpToWholeProcessors() throws {
    let root = try Folder(["proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"])
    #expect(Processors.quota(root: root.path) == 2)
    let small = try Folder(["proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "10000 100000\n"])
    #expect(Processors.usable(root: small.path) == 1)
  }

  @Test func theSmallestQuotaOfAllLevelsHolds() throws {
    let root = try Folder([
      "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
      "sys/fs/cgroup/a/cpu.max": "100000 100000\n", "sys/fs/cgroup/cpu.max": "max 100000\n",
    ])
    #expect(Processors.quota(root: root.path) == 1)
  }

  @Test func versionOneHasItsOwnFiles() throws {
    let root = try Folder([
      "proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/x\n",
      "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000\n",
      "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
    ])
    #expect(Processors.quota(root: root.path) == 3)
    let none = try Folder([
      "proc/self/cgroup": "4:cpu:/job\n", "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
    ])
    #expect(Processors.quota(root: none.path) == nil)
  }
}

/// A folder with files, gone with the value.
private final class Folder {
  let path: String
  private var made: [String] = []

  init(_ files: [String: String]) throws {
    var template = Array("/tmp/ringway-XXXXXX".utf8CString)
    let created: String? = template.withUnsafeMutableBufferPointer { buffer in
      guard let name = buffer.baseAddress, mkdtemp(name) != nil else { return nil }
      return String(cString: name)
    }
    path = try #require(created)
    for (name, text) in files {
      var folder = path
      for part in name.split(separator: "/").dropLast() {
        folder += "/" + part
        if mkdir(folder, 0o700) == 0 { made.append(folder) }
      }
      let file = try #require(fopen(path + "/" + name, "w"))
      fputs(text, file)
      fclose(file)
      made.append(path + "/" + name)
    }
  }

  deinit {
    for name in made.reversed() { remove(name) }
    rmdir(path)
  }
}
