internal import CUring
internal import Glibc

/// One `io_uring` instance and its receive buffers; no C pointer leaves this file but the entries it hands out.
@safe struct Ring: ~Copyable {
  /// liburing keeps the address, so the structure lives on the heap.
  private let raw: UnsafeMutablePointer<io_uring>
  private let bufferRing: UnsafeMutablePointer<io_uring_buf_ring>
  private let bufferCount: UInt32
  private var returned: Int32 = 0
  /// What this kernel granted, in words for the log.
  let features: [String]

  private static let group: UInt16 = 0

  /// Sets the ring up for one submitting thread: the calling one, which must be the core's own.
  ///
  /// - Throws: `EPERM` (seccomp, sysctl), `ENOSYS` or `EINVAL` (kernel before 6.1), `ENOMEM` (memlock limit).
  init(entries: UInt32, buffers: BufferPool) throws(SystemError) {
    let ring = try unsafe Ring.setUp(entries)
    var granted = [
      "single_issuer", "defer_taskrun", "multishot_accept", "multishot_receive", "silent_sends",
      "ring_messages", "provided_buffers",
    ]
    if unsafe io_uring_register_ring_fd(ring) == 1 { granted.append("registered_ring") }
    let registered: UnsafeMutablePointer<io_uring_buf_ring>
    do throws(SystemError) {
      unsafe registered = try Ring.registerBuffers(ring, count: UInt32(buffers.count))
    } catch {
      unsafe io_uring_queue_exit(ring)
      unsafe ring.deallocate()
      throw error
    }
    unsafe raw = ring
    unsafe bufferRing = registered
    bufferCount = UInt32(buffers.count)
    features = granted
    for buffer in 0..<UInt16(buffers.count) { unsafe provide(buffer, buffers.memory(buffer)) }
  }

  deinit {
    unsafe io_uring_queue_exit(raw)
    unsafe munmap(bufferRing, Int(bufferCount) * MemoryLayout<io_uring_buf>.size)
    unsafe raw.deallocate()
  }

  private static func setUp(_ entries: UInt32) throws(SystemError) -> UnsafeMutablePointer<io_uring> {
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    unsafe ring.initialize(to: io_uring())
    var parameters = io_uring_params()
    // SINGLE_ISSUER with DEFER_TASKRUN came with 6.1, and with them all else that is used here: multishot accept and
    // receive, provided buffer rings, messages between rings, silent success. So one set-up call is the probe.
    parameters.flags =
      UInt32(RW_SETUP_SINGLE_ISSUER) | UInt32(RW_SETUP_DEFER_TASKRUN) | UInt32(RW_SETUP_SUBMIT_ALL)
      | UInt32(RW_SETUP_CQSIZE) | UInt32(RW_SETUP_CLAMP)
    parameters.cq_entries = entries * 8
    let made = unsafe io_uring_queue_init_params(entries, ring, &parameters)
    guard made == 0 else {
      unsafe ring.deallocate()
      throw SystemError(code: -made)
    }
    unsafe rw_ring_is_new(ring)
    return unsafe ring
  }

  private static func registerBuffers(
    _ raw: UnsafeMutablePointer<io_uring>, count: UInt32
  ) throws(SystemError) -> UnsafeMutablePointer<io_uring_buf_ring> {
    let size = Int(count) * MemoryLayout<io_uring_buf>.size
    let mapped = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory = unsafe mapped, unsafe memory != UnsafeMutableRawPointer(bitPattern: -1) else {
      throw SystemError.last
    }
    let ring = unsafe memory.bindMemory(to: io_uring_buf_ring.self, capacity: 1)
    var registration = io_uring_buf_reg()
    registration.ring_addr = UInt64(UInt(bitPattern: memory))
    registration.ring_entries = count
    registration.bgid = group
    let result = unsafe io_uring_register_buf_ring(raw, &registration, 0)
    guard result == 0 else {
      unsafe munmap(memory, size)
      throw SystemError(code: -result)
    }
    unsafe io_uring_buf_ring_init(ring)
    return unsafe ring
  }

  /// The number other rings address messages to.
  var descriptor: Int32 { unsafe raw.pointee.ring_fd }

  /// An empty submission entry; sends the queue off first when it is full. Nil only when the kernel takes nothing.
  mutating func entry() -> UnsafeMutablePointer<io_uring_sqe>? {
    if let entry = unsafe io_uring_get_sqe(raw) { return unsafe entry }
    unsafe io_uring_submit(raw)
    return unsafe io_uring_get_sqe(raw)
  }

  /// Lines a free buffer up for the kernel; it sees it after `publishBuffers`.
  mutating func provide(_ buffer: UInt16, _ memory: UnsafeMutableRawBufferPointer) {
    unsafe io_uring_buf_ring_add(
      bufferRing, memory.baseAddress, UInt32(memory.count), buffer, Int32(bufferCount - 1), returned)
    returned += 1
  }

  /// Shows the kernel all buffers lined up since the last time.
  mutating func publishBuffers() {
    guard returned > 0 else { return }
    unsafe io_uring_buf_ring_advance(bufferRing, returned)
    returned = 0
  }

  /// Multishot receive into provided buffers.
  mutating func prepareReceive(
    _ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ token: Token
  ) {
    unsafe rw_prep_receive(entry, descriptor, Ring.group, token.rawValue)
  }

  /// One system call: submits everything and, if asked, waits for a completion or the deadline.
  ///
  /// `ETIME`, `EINTR`, `EAGAIN` and `EBUSY` only mean that the caller should look at what has completed and come again.
  mutating func enter(waitNanoseconds: UInt64?) {
    guard let wait = waitNanoseconds else {
      unsafe io_uring_submit_and_get_events(raw)
      return
    }
    var time = __kernel_timespec(
      tv_sec: Int64(clamping: wait / 1_000_000_000), tv_nsec: Int64(wait % 1_000_000_000))
    var first: UnsafeMutablePointer<io_uring_cqe>?
    unsafe io_uring_submit_and_wait_timeout(raw, &first, 1, &time, nil)
  }

  /// Entries that the kernel has not taken yet.
  var isBehind: Bool { unsafe io_uring_sq_ready(raw) > 0 }

  /// Moves completions out of the ring; call until it returns 0. Asks the kernel for those that did not fit.
  mutating func drain(into room: UnsafeMutablePointer<rw_completion>, _ count: Int) -> Int {
    let drained = unsafe Int(rw_ring_drain(raw, room, UInt32(count)))
    if drained == 0, unsafe rw_ring_overflowed(raw) {
      unsafe io_uring_get_events(raw)
      return unsafe Int(rw_ring_drain(raw, room, UInt32(count)))
    }
    return drained
  }
}
