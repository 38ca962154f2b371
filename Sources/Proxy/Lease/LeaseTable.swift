/// Finds what belongs to a lease: a table with open addressing and linear probing, which allocates only when it grows.
struct LeaseTable {
  private static let none = UInt32.max
  private static let least = 8

  private var leases: [Int64] = []
  private var places: [UInt32] = []
  private var mask = 0
  /// Clients choose the numbers of leases; this keeps them from choosing where those land.
  private let seed: UInt64
  private(set) var count = 0

  init(seed: UInt64) { self.seed = seed }

  private func home(_ lease: Int64) -> Int {
    var mixed = UInt64(bitPattern: lease) ^ seed
    mixed = (mixed ^ mixed >> 32) &* 0x9E37_79B9_7F4A_7C15
    mixed = (mixed ^ mixed >> 29) &* 0xBF58_476D_1CE4_E5B9
    return Int(truncatingIfNeeded: mixed >> 32) & mask
  }

  /// The slot that has the lease, or the free one where it belongs; the table is not empty.
  private func slot(of lease: Int64) -> Int {
    var slot = home(lease)
    while places[slot] != Self.none, leases[slot] != lease { slot = (slot + 1) & mask }
    return slot
  }

  func find(_ lease: Int64) -> UInt32? {
    guard count > 0 else { return nil }
    let place = places[slot(of: lease)]
    return place == Self.none ? nil : place
  }

  /// Adds a lease that is not there.
  mutating func insert(_ lease: Int64, _ place: UInt32) {
    if 4 * (count + 1) > 3 * places.count { grow() }
    let slot = slot(of: lease)
    leases[slot] = lease
    places[slot] = place
    count += 1
  }

  mutating func remove(_ lease: Int64) {
    guard count > 0 else { return }
    var hole = slot(of: lease)
    guard places[hole] != Self.none else { return }
    count -= 1
    // What follows moves up, unless its home lies behind the hole: nothing may stand behind a gap.
    var next = (hole + 1) & mask
    while places[next] != Self.none {
      if (next - home(leases[next])) & mask >= (next - hole) & mask {
        leases[hole] = leases[next]
        places[hole] = places[next]
        hole = next
      }
      next = (next + 1) & mask
    }
    places[hole] = Self.none
  }

  private mutating func grow() {
    let (oldLeases, oldPlaces) = (leases, places)
    let size = max(Self.least, 2 * places.count)
    leases = Array(repeating: 0, count: size)
    places = Array(repeating: Self.none, count: size)
    mask = size - 1
    for (lease, place) in zip(oldLeases, oldPlaces) where place != Self.none {
      let slot = slot(of: lease)
      leases[slot] = lease
      places[slot] = place
    }
  }
}

/// Elements named by small numbers; the numbers of those removed are used again.
struct IndexPool<Element> {
  private var elements: [Element] = []
  private var free: [UInt32] = []

  var count: Int { elements.count - free.count }

  subscript(index: UInt32) -> Element {
    get { elements[Int(index)] }
    _modify { yield &elements[Int(index)] }
  }

  mutating func insert(_ element: Element) -> UInt32 {
    guard let index = free.popLast() else {
      elements.append(element)
      return UInt32(elements.count - 1)
    }
    elements[Int(index)] = element
    return index
  }

  /// Frees the number; the element stays until the number is used again.
  mutating func remove(_ index: UInt32) {
    free.append(index)
  }
}
