internal import Reactor

/// Handles by hash: open addressing, without tombstones. The owner knows the keys.
struct HandleIndex {
  private struct Place {
    var hash: UInt64 = 0
    var handle = Handle.none
  }

  private var places = [Place](repeating: Place(), count: 64)
  private(set) var count = 0

  private func home(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash) & (places.count - 1) }
  private func after(_ place: Int) -> Int { (place + 1) & (places.count - 1) }

  func find(_ hash: UInt64, _ isIt: (Handle) -> Bool) -> Handle? {
    var place = home(hash)
    while places[place].handle != .none {
      if places[place].hash == hash, isIt(places[place].handle) { return places[place].handle }
      place = after(place)
    }
    return nil
  }

  mutating func insert(_ hash: UInt64, _ handle: Handle) {
    if (count + 1) * 2 > places.count { grow() }
    put(Place(hash: hash, handle: handle))
    count += 1
  }

  private mutating func put(_ entry: Place) {
    var place = home(entry.hash)
    while places[place].handle != .none { place = after(place) }
    places[place] = entry
  }

  private mutating func grow() {
    let old = places
    places = [Place](repeating: Place(), count: old.count * 2)
    for entry in old where entry.handle != .none { put(entry) }
  }

  mutating func remove(_ hash: UInt64, _ handle: Handle) {
    var place = home(hash)
    while places[place].handle != handle {
      guard places[place].handle != .none else { return }
      place = after(place)
    }
    count -= 1
    // What follows moves up, unless it would come to stand before its home.
    var hole = place
    place = after(place)
    while places[place].handle != .none {
      let distance = (place - home(places[place].hash)) & (places.count - 1)
      if distance >= (place - hole) & (places.count - 1) {
        places[hole] = places[place]
        hole = place
      }
      place = after(place)
    }
    places[hole] = Place()
  }
}
