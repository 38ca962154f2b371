internal import Glibc

/// A value behind a lock that threads can wait on: a pthread mutex and condition. `Synchronization.Mutex` has no
/// way to wait for a change, and the thread sanitizer does not see its locking and reports races that are none.
@safe final class LogMonitor<Value: Sendable>: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var value: Value

  init(_ value: Value) {
    self.value = value
    unsafe mutex.initialize(to: pthread_mutex_t())
    unsafe pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    // Deadlines must not move when somebody sets the wall clock.
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    unsafe changed.initialize(to: pthread_cond_t())
    unsafe pthread_cond_init(changed, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_cond_destroy(changed)
    unsafe pthread_mutex_destroy(mutex)
    unsafe changed.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` under the lock, then wakes whoever waits (free of system calls if nobody does).
  func withLock<Result>(_ body: (inout Value) -> Result) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    let result = body(&value)
    unsafe pthread_cond_broadcast(changed)
    return result
  }

  /// Waits for `isReady`, then runs `body` under the same lock.
  func wait<Result>(until isReady: (Value) -> Bool, then body: (inout Value) -> Result) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    while !isReady(value) { unsafe pthread_cond_wait(changed, mutex) }
    return body(&value)
  }

  /// Waits for `isReady` at most `limit` long; false if it did not come true.
  func wait(atMost limit: Instant.Span, until isReady: (Value) -> Bool) -> Bool {
    var deadline = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &deadline)
    let fraction = deadline.tv_nsec + Int(limit.nanoseconds % 1_000_000_000)
    deadline.tv_sec += Int(limit.nanoseconds / 1_000_000_000) + fraction / 1_000_000_000
    deadline.tv_nsec = fraction % 1_000_000_000
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    while !isReady(value) {
      if unsafe pthread_cond_timedwait(changed, mutex, &deadline) != 0 { return isReady(value) }
    }
    return true
  }
}
