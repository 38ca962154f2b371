internal import Glibc
internal import Reactor

/// What every server says of its process.
enum ProcessMetrics {
  static func write(_ text: inout MetricsText, backend used: IOBackend, cores: Int) {
    text.family("ringway_build_info", .gauge, help: "1, labelled with the version.")
    text.sample(labels: [("version", Version.text)], 1 as UInt64)
    text.family("ringway_io_backend", .gauge, help: "1 for the kernel interface in use.")
    for backend in IOBackend.allCases {
      text.sample(labels: [("backend", backend.rawValue)], backend == used ? 1 as UInt64 : 0)
    }
    text.family("ringway_cores", .gauge, help: "Threads that move bytes.")
    text.sample(UInt64(cores))
    var usage = rusage()
    unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    let seconds =
      Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
      + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
    text.family("process_cpu_seconds_total", .counter, help: "CPU time used, in seconds.")
    text.sample(number: seconds)
    text.family("process_max_resident_memory_bytes", .gauge, help: "Largest resident memory so far.")
    text.sample(UInt64(clamping: usage.ru_maxrss) &* 1024)
  }
}
