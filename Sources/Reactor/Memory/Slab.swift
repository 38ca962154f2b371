/// What a slab knows about a slot besides its element. Kept apart from the elements, so that generations
/// survive when the elements' pages go back to the kernel.
@usableFromInline struct SlabHeader: BitwiseCopyable {
  /// Odd while occupied.
  @usableFromInline var generation: UInt32
  /// Free: the next free slot. Occupied: 1 while a body is editing the element, else 0.
  @usableFromInline var link: UInt32

  @inlinable init(generation: UInt32, link: UInt32) {
    self.generation = generation
    self.link = link
  }
}

/// Fixed room for elements of one kind, named by handles that outlive their element harmlessly.
///
/// Elements never move and are edited in place: no copy, no reference count. The room is reserved as address
/// space, and a page becomes memory when a slot in it is first used. Freed slots are reused last in, first
/// out, while their cache lines are warm. Once the last occupant leaves, the memory goes back to the kernel
/// except for the first `keptWhenEmpty` bytes, and slots are handed out from the start again.
///
/// Belongs to one thread. `edit`, `insert` and `remove` may be called from inside a body that edits *another*
/// element; touching the element under edit again, or removing it, is a programming error and traps.
@safe public final class Slab<Element: ~Copyable> {
  // What must hold: a slot below `frontier` is occupied (odd generation, element initialized) or on the free
  // stack (even generation, element uninitialized); slots from `frontier` on are unoccupied and on no stack.

  /// The number of elements that fit.
  public let capacity: Int

  @usableFromInline let elements: UnsafeMutablePointer<Element>
  @usableFromInline let headers: UnsafeMutablePointer<SlabHeader>
  @usableFromInline var firstFree = UInt32.max
  @usableFromInline var frontier: UInt32 = 0
  @usableFromInline var occupied = 0

  private let elementPages: Reservation
  private let headerPages: Reservation

  /// Bytes that an empty slab keeps: an idle core whose only connection comes and goes should not pay a
  /// system call and page faults each time.
  public static var keptWhenEmpty: Int { 64 * 1024 }

  /// Reserves address space for `capacity` elements, at most 2^24.
  public init(capacity: Int) throws(SystemError) {
    precondition(capacity >= 0 && capacity <= 1 << 24, "a handle's slot has 24 bits")
    precondition(MemoryLayout<Element>.alignment <= 4096, "elements are aligned to pages at most")
    self.capacity = capacity
    elementPages = try Reservation(count: capacity, stride: MemoryLayout<Element>.stride)
    headerPages = try Reservation(count: capacity, stride: MemoryLayout<SlabHeader>.stride)
    unsafe elements = elementPages.base.bindMemory(to: Element.self, capacity: capacity)
    unsafe headers = headerPages.base.bindMemory(to: SlabHeader.self, capacity: capacity)
  }

  deinit {
    for slot in 0..<Int(frontier) where unsafe headers[slot].generation & 1 == 1 {
      unsafe (elements + slot).deinitialize(count: 1)
    }
  }

  /// The number of elements in the slab.
  @inlinable public var count: Int { occupied }

  /// Whether the element that `handle` was made for is still here.
  @inlinable public func contains(_ handle: Handle) -> Bool {
    unsafe Int(handle.slot) < capacity && handle.generation & 1 == 1
      && headers[Int(handle.slot)].generation == handle.generation
  }

  /// Moves an element in. Nil when the slab is full; the element is then gone.
  @inlinable public func insert(_ element: consuming Element) -> Handle? {
    let slot: UInt32
    if firstFree != .max {
      slot = firstFree
      unsafe firstFree = headers[Int(slot)].link
    } else if Int(frontier) < capacity {
      slot = frontier
      frontier &+= 1
    } else {
      return nil
    }
    unsafe (elements + Int(slot)).initialize(to: element)
    let generation = unsafe headers[Int(slot)].generation &+ 1
    unsafe headers[Int(slot)] = SlabHeader(generation: generation, link: 0)
    occupied &+= 1
    return Handle(slot: slot, generation: generation)
  }

  /// Moves an element out; every copy of its handle is stale from then on. Nil when it already was.
  @inlinable public func remove(_ handle: Handle) -> Element? {
    guard contains(handle) else { return nil }
    unsafe precondition(headers[Int(handle.slot)].link == 0, "an element was removed while under edit")
    let element = unsafe (elements + Int(handle.slot)).move()
    unsafe headers[Int(handle.slot)] = SlabHeader(generation: handle.generation &+ 1, link: firstFree)
    firstFree = handle.slot
    occupied &-= 1
    if occupied == 0 { startAfresh() }
    return element
  }

  /// Edits an element where it lies. Nil, and `body` is not called, when the handle is stale.
  @inlinable public func edit<R: ~Copyable>(_ handle: Handle, _ body: (inout Element) -> R) -> R? {
    guard contains(handle) else { return nil }
    return visit(Int(handle.slot), body)
  }

  /// Edits every element in the order of slots. Elements inserted meanwhile may be visited or not.
  @inlinable public func forEach(_ body: (Handle, inout Element) -> Void) {
    var slot: UInt32 = 0
    while slot < frontier {
      let generation = unsafe headers[Int(slot)].generation
      if generation & 1 == 1 {
        visit(Int(slot)) { element in body(Handle(slot: slot, generation: generation), &element) }
      }
      slot &+= 1
    }
  }

  /// The mark in `link` costs two stores to a line that was just read. It is checked in release builds too:
  /// two exclusive views of one element would be silent memory corruption.
  @inlinable func visit<R: ~Copyable>(_ slot: Int, _ body: (inout Element) -> R) -> R {
    unsafe precondition(headers[slot].link == 0, "an element was edited while under edit")
    unsafe headers[slot].link = 1
    defer { unsafe headers[slot].link = 0 }
    return unsafe body(&elements[slot])
  }

  /// Nothing is occupied, so that "free" needs no list: all slots count as never used, with the generations
  /// they have reached.
  @usableFromInline func startAfresh() {
    let touched = Int(frontier) * MemoryLayout<Element>.stride
    firstFree = .max
    frontier = 0
    if touched > Self.keptWhenEmpty { elementPages.discard(bytes: touched) }
  }
}
