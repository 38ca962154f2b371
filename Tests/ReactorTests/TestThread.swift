import Glibc
import Synchronization

/// A thread that runs one body and is joined; Foundation-free.
struct TestThread {
  private final class Box {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  private let thread: pthread_t

  init(_ body: @escaping @Sendable () -> Void) {
    let box = Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
        return nil
      }, box.toOpaque())
    precondition(result == 0, "pthread_create: \(result)")
    self.thread = thread
  }

  func join() { pthread_join(thread, nil) }

  /// Runs all bodies at the same time and waits for them.
  static func run(_ bodies: [@Sendable () -> Void]) {
    for thread in bodies.map({ TestThread($0) }) { thread.join() }
  }

  /// Lets another thread have the core: there may be fewer cores than threads.
  static func pause() { sched_yield() }
}

/// What a thread saw, for an expectation after it was joined: a million expectations would take minutes.
final class Tally: Sendable {
  private let rights = Atomic<Int>(0)
  private let wrongs = Atomic<Int>(0)

  func check(_ condition: Bool) {
    if condition {
      rights.wrappingAdd(1, ordering: .relaxed)
    } else {
      wrongs.wrappingAdd(1, ordering: .relaxed)
    }
  }

  var right: Int { rights.load(ordering: .relaxed) }
  var wrong: Int { wrongs.load(ordering: .relaxed) }
}
