internal import Glibc

/// Address space that costs memory only where it has been touched, and can give the memory back.
///
/// What must hold: the range `base ..< base + byteCount` belongs to this value alone, and nothing points into
/// it after `deinit`.
@safe @usableFromInline struct Reservation: ~Copyable {
  @usableFromInline let base: UnsafeMutableRawPointer
  private let byteCount: Int

  /// Maps zeroed pages. Fails with `ENOMEM` where the kernel accounts for every page ahead
  /// (`vm.overcommit_memory=2`) or the address space is limited.
  init(count: Int, stride: Int) throws(SystemError) {
    let (bytes, overflow) = count.multipliedReportingOverflow(by: stride)
    guard !overflow else { throw SystemError(code: ENOMEM) }
    unsafe base = try Self.map(max(bytes, 1))
    byteCount = max(bytes, 1)
    // With huge pages the first touch would cost 2 MiB instead of 4 KiB. A kernel without them answers EINVAL.
    _ = unsafe madvise(base, byteCount, MADV_NOHUGEPAGE)
  }

  private static func map(_ bytes: Int) throws(SystemError) -> UnsafeMutableRawPointer {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    let mapped = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
    guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else { throw .last }
    return unsafe mapped
  }

  /// Gives the pages of the first `bytes` back to the kernel; they read as zero from then on. Advice only: a
  /// kernel that refuses leaves the old contents, so callers must not rely on the zeroes.
  func discard(bytes: Int) {
    assert(bytes <= byteCount)
    _ = unsafe madvise(base, min(bytes, byteCount), MADV_DONTNEED)
  }

  deinit { _ = unsafe munmap(base, byteCount) }
}
