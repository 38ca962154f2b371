import Glibc
import Testing

@testable import Reactor

@Suite struct SlabTests {
  /// Counts how many are alive; noncopyable, so that a copy would not compile and a leak shows.
  struct Guest: ~Copyable {
    final class Book { var alive = 0 }
    let book: Book
    var name: Int
    init(_ name: Int, _ book: Book) {
      self.name = name
      self.book = book
      book.alive += 1
    }
    deinit { book.alive -= 1 }
  }

  @Test func insertsEditsRemoves() throws {
    let book = Guest.Book()
    let slab = try Slab<Guest>(capacity: 2)
    let handles = [slab.insert(Guest(1, book)), slab.insert(Guest(2, book)), slab.insert(Guest(3, book))]
    let a = try #require(handles[0])
    let b = try #require(handles[1])
    #expect(handles[2] == nil)
    #expect(book.alive == 2 && slab.count == 2 && slab.capacity == 2)
    #expect(
      slab.edit(a) { guest in
        guest.name += 10; return guest.name
      } == 11)
    #expect(slab.edit(b) { guest in guest.name } == 2)
    if let guest = slab.remove(a) { #expect(guest.name == 11) } else { Issue.record("not there") }
    #expect(book.alive == 1 && slab.count == 1)
    #expect(!slab.contains(a) && slab.contains(b))
  }

  @Test func staleHandlesFindNothing() throws {
    let slab = try Slab<Int>(capacity: 4)
    let old = try #require(slab.insert(1))
    #expect(slab.remove(old) == 1)
    let new = try #require(slab.insert(2))
    #expect(new.slot == old.slot && new.generation != old.generation && new.generation & 1 == 1)
    #expect(slab.remove(old) == nil && slab.edit(old) { $0 } == nil)
    #expect(slab.edit(new) { $0 } == 2)
    // Handles that were never given out, as damaged bytes could name them.
    #expect(!slab.contains(Handle(slot: new.slot, generation: new.generation &+ 1)))
    #expect(!slab.contains(Handle(slot: 3, generation: 0)))
    #expect(!slab.contains(Handle(slot: 4, generation: 1)))
    #expect(!slab.contains(Handle(slot: 1 << 24 - 1, generation: 1)))
  }

  @Test func reusesTheWarmestSlot() throws {
    let slab = try Slab<Int>(capacity: 8)
    let handles = (0..<5).compactMap { slab.insert($0) }
    #expect(handles.map(\.slot) == [0, 1, 2, 3, 4])
    for index in [1, 3, 2] { _ = slab.remove(handles[index]) }
    #expect((0..<4).compactMap { slab.insert($0)?.slot } == [2, 3, 1, 5])
  }

  @Test func othersMayComeAndGoDuringAnEdit() throws {
    let slab = try Slab<[Int]>(capacity: 4)
    let a = try #require(slab.insert([1]))
    let b = try #require(slab.insert([2]))
    var c: Handle?
    slab.edit(a) { first in
      slab.edit(b) { second in first += second }
      _ = slab.remove(b)
      c = slab.insert([3])
      first.append(slab.count)
    }
    #expect(slab.remove(a) == [1, 2, 2])
    #expect(slab.remove(try #require(c)) == [3])
    #expect(slab.count == 0)
  }

  @Test func sameElementTwiceTraps() async {
    await #expect(processExitsWith: .failure) {
      let slab = try Slab<Int>(capacity: 1)
      if let handle = slab.insert(1) {
        slab.edit(handle) { outer in slab.edit(handle) { inner in inner += outer } }
      }
    }
    await #expect(processExitsWith: .failure) {
      let slab = try Slab<Int>(capacity: 1)
      if let handle = slab.insert(1) { slab.edit(handle) { _ in _ = slab.remove(handle) } }
    }
  }

  @Test func visitsEveryElement() throws {
    let slab = try Slab<Int>(capacity: 10)
    let handles = (0..<10).compactMap { slab.insert($0) }
    for handle in handles where handle.slot % 3 == 0 { _ = slab.remove(handle) }
    var seen: [Handle] = []
    slab.forEach { handle, element in
      #expect(Int(handle.slot) == element)
      element += 100
      seen.append(handle)
    }
    #expect(seen == handles.filter { $0.slot % 3 != 0 })
    #expect(seen.allSatisfy { handle in slab.edit(handle) { $0 } == Int(handle.slot) + 100 })
  }

  @Test func destroysWhatIsLeft() throws {
    let book = Guest.Book()
    do {
      let slab = try Slab<Guest>(capacity: 100)
      let handles = (0..<50).compactMap { slab.insert(Guest($0, book)) }
      for handle in handles.prefix(20) { _ = slab.remove(handle) }
      #expect(book.alive == 30)
    }
    #expect(book.alive == 0)
  }

  /// Eight words, so that 64 of them fill a page.
  typealias Wide = InlineArray<8, Int>

  func residentPages(_ slab: Slab<Wide>) -> Int {
    let pages = slab.capacity * MemoryLayout<Wide>.stride / 4096
    var resident = [UInt8](repeating: 0, count: pages)
    #expect(mincore(UnsafeMutableRawPointer(slab.elements), pages * 4096, &resident) == 0)
    return resident.reduce(0) { $0 + Int($1 & 1) }
  }

  @Test func memoryFollowsUse() throws {
    let slab = try Slab<Wide>(capacity: 1 << 20)
    #expect(residentPages(slab) == 0)
    let handles = (0..<64 * 100).compactMap { slab.insert(Wide(repeating: $0)) }
    #expect(residentPages(slab) == 100)
    for handle in handles.dropLast() { _ = slab.remove(handle) }
    #expect(residentPages(slab) == 100)
    _ = slab.remove(try #require(handles.last))
    #expect(residentPages(slab) == 0)
    #expect(handles.allSatisfy { !slab.contains($0) })

    let again = try #require(slab.insert(Wide(repeating: 7)))
    #expect(again.slot == 0 && again.generation == 3)
    #expect(residentPages(slab) == 1)
    _ = slab.remove(again)
    #expect(residentPages(slab) == 1, "a single guest's page is kept")
  }

  @Test(arguments: 0..<200) func agreesWithADictionary(seed: UInt64) throws {
    var random = SplitMix(seed: seed)
    let slab = try Slab<UInt64>(capacity: 16)
    var model: [Handle: UInt64] = [:]
    var past: [Handle] = []
    for step in 0..<500 {
      switch random.next() % 4 {
      case 0, 1:
        let handle = slab.insert(random.next())
        #expect((handle == nil) == (model.count == 16))
        if let handle {
          #expect(model[handle] == nil)
          model[handle] = slab.edit(handle) { $0 }
          past.append(handle)
        }
      case 2:
        guard let handle = past.randomElement(using: &random) else { continue }
        #expect(slab.remove(handle) == model.removeValue(forKey: handle))
      default:
        guard let handle = past.randomElement(using: &random) else { continue }
        let value = slab.edit(handle) { element in
          element &+= UInt64(step); return element
        }
        if value != nil { model[handle]? &+= UInt64(step) }
        #expect(value == model[handle])
      }
      #expect(slab.count == model.count)
    }
  }
}

/// Randomness that a seed repeats.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
