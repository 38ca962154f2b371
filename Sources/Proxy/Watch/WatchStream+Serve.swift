internal import Reactor

/// What a client's stream is sent: what goes before events, then each watcher's blocks in turn.
extension WatchStream {
  /// Sends what there is and the client takes.
  func serve(on connection: inout ClientConnection) {
    if hasSettled {
      hasSettled = false
      walk()
    }
    guard !isBlocked, isOpen, hasWork else { return }
    sendHead(on: &connection)
    guard var run = connection.transport.http2.beginData(stream) else { return }
    let isAll = write(&run, &connection)
    if deliveries > 0 {
      core.shared.counters.add(.watchDeliveries, deliveries, core: core.index)
      deliveries = 0
    }
    isBlocked = !isAll
    connection.transport.http2.endData(run, isBlocked: !isAll)
    guard owedCredit > 0 else { return }
    let credited = credit()
    if credited > 0 { connection.transport.http2.credit(stream, credited) }
  }

  private var hasWork: Bool {
    !control.isEmpty || partial != nil || firstReady != .none || isProgressDue
  }

  /// False when there is more than the client takes.
  private func write(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    while true {
      guard finishPartial(&run, &connection), sendControl(&run, &connection) else { return false }
      guard let handle = dequeue() else { break }
      switch serve(handle, &run, &connection) {
      case .done: continue
      case .more: _ = hub.watchers.edit(handle) { enqueue(&$0, handle) }
      case .detour: hub.detourLater(handle)
      case .over(let end): over(handle, end)
      case .blocked:
        _ = hub.watchers.edit(handle) { enqueueFirst(&$0, handle) }
        return false
      }
      if !isOpen { return true }
    }
    guard isProgressDue, stepsDone == steps.count || !waitsForCreate, let header = progress else {
      return true
    }
    isProgressDue = false
    progress = nil
    guard isCovered else {
      hub.askAgain(self)
      return true
    }
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, -1)
    }
    return sendControl(&run, &connection)
  }

  /// The answer speaks of all watchers: their groups stood before the question was asked, and nobody is on the way to another
  /// one, or behind in what has come.
  private var isCovered: Bool {
    var isCovered = true
    forEachWatcher { watcher in
      let group = unsafe watcher.group
      if group.stoodAfter >= firstQuestion || watcher.cursor != group.history.end || !watcher.canBeServed {
        isCovered = false
      }
    }
    return isCovered
  }

  /// A create waits for its group.
  private var waitsForCreate: Bool {
    if case .create = steps[stepsDone] { return true }
    return false
  }

  private func enqueueFirst(_ watcher: inout Watcher, _ handle: Handle) {
    watcher.flags.insert(.isReady)
    watcher.nextReady = firstReady
    firstReady = handle
    if lastReady == .none { lastReady = handle }
  }

  private func sendControl(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    guard !control.isEmpty else { return true }
    let size = min(control.count, run.room)
    if size > 0 {
      unsafe connection.transport.http2.appendData(
        &run, UnsafeRawBufferPointer(rebasing: control.bytes[..<size]))
      control.consume(size)
    }
    return control.isEmpty
  }

  /// What became of a watcher's turn.
  fileprivate enum Turn {
    case done, more, blocked, detour
    case over(WatchEnd)
  }

  /// Sends a watcher's blocks, at most some before the next one has its turn.
  private func serve(_ handle: Handle, _ run: inout DataRun, _ connection: inout ClientConnection) -> Turn {
    var turn = Turn.done
    _ = hub.watchers.edit(handle) { watcher in
      let group = unsafe watcher.group
      guard watcher.canBeServed else { return }
      var blocks = 0
      while watcher.cursor != group.history.end {
        if watcher.cursor < group.history.base {
          turn = .detour
          return
        }
        if blocks == Limits.watchBlocksATurn {
          turn = .more
          return
        }
        let block = group.history[watcher.cursor]
        if block.last >= watcher.floor {
          if watcher.flags.contains(.wantsPrevious), !block.hasPrevious {
            turn = .detour
            return
          }
          let cut = block.first < watcher.floor ? block.cut(from: watcher.floor) : block
          if let cut, !send(cut, &watcher, &run, &connection) {
            turn = .blocked
            return
          }
          watcher.floor = block.last + 1
          connection.shown = max(connection.shown, block.header.revision)
        }
        watcher.cursor += 1
        hub.note(group, watcher.cursor)
        blocks += 1
        // The rest of a large message goes before everything else.
        if partial != nil {
          turn = .blocked
          return
        }
      }
      if watcher.flags.contains(.owesProgress) { sayProgress(&watcher, group) }
      if let end = group.end { turn = .over(end) }
    }
    return turn
  }

  private func sayProgress(_ watcher: inout Watcher, _ group: LocalGroup) {
    watcher.flags.remove(.owesProgress)
    guard group.progressRevision + 1 >= group.next, group.progressRevision + 1 >= watcher.floor else {
      return
    }
    watcher.floor = group.progressRevision + 1
    var header = group.header
    header.revision = group.progressRevision
    let id = watcher.id
    writeControl { output in
      output.append(header.encoded)
      output.appendField(2, id)
    }
  }

  /// Sends a block to a watcher; false when it cannot even begin.
  private func send(
    _ block: WatchBlock, _ watcher: inout Watcher, _ run: inout DataRun, _ connection: inout ClientConnection
  ) -> Bool {
    let variant = block.relevant(watcher.variant)
    guard variant.isEmpty else {
      return sendVariant(block, variant, &watcher, &run, &connection)
    }
    guard run.room > 0 else { return false }
    let whole = unsafe WatchMessage(block.bytes, id: watcher.id)
    deliveries += 1
    if whole.write(&run, &connection.transport.http2) { return true }
    partial = Partial(block: block, variant: [], part: 0, id: watcher.id, sent: 0)
    _ = finishPartial(&run, &connection)
    return true
  }

  private func sendVariant(
    _ block: WatchBlock, _ variant: WatchBlock.Variant, _ watcher: inout Watcher, _ run: inout DataRun,
    _ connection: inout ClientConnection
  ) -> Bool {
    let encoding = block.encoding(variant)
    guard !encoding.messages.isEmpty else { return true }
    guard run.room > 0 else { return false }
    deliveries += 1
    partial = Partial(block: block, variant: variant, part: 0, id: watcher.id, sent: 0)
    _ = finishPartial(&run, &connection)
    return true
  }

  /// Sends the rest of a message that has begun to leave, and of its parts; false while some is left.
  private func finishPartial(_ run: inout DataRun, _ connection: inout ClientConnection) -> Bool {
    while var rest = partial {
      let parts = rest.variant.isEmpty ? 1 : rest.block.encoding(rest.variant).messages.count
      let isAll: Bool
      if rest.variant.isEmpty {
        isAll = unsafe WatchMessage(rest.block.bytes, id: rest.id).write(
          &run, &connection.transport.http2, from: &rest.sent)
      } else {
        isAll = unsafe rest.block.encoding(rest.variant).messages[rest.part].withUnsafeBytes { body in
          unsafe WatchMessage(body, id: rest.id).write(&run, &connection.transport.http2, from: &rest.sent)
        }
      }
      guard isAll else {
        partial = rest
        return false
      }
      partial =
        rest.part + 1 < parts
        ? Partial(block: rest.block, variant: rest.variant, part: rest.part + 1, id: rest.id, sent: 0) : nil
    }
    return true
  }

  // MARK: Ends

  /// A watcher has had all that its group had, and the group has ended.
  private func over(_ handle: Handle, _ end: WatchEnd) {
    switch end.reason {
    case .replaced: return hub.rejoinLater(handle)
    case .status(let code, let words): return endLater(code, words)
    case .canceled, .refused:
      if mayTryItself(end) { return hub.rejoinLater(handle) }
      let revision = end.verdict.compactRevision
      var id: Int64 = 0
      var floor: Int64 = 0
      _ = hub.watchers.edit(handle) { (id, floor) = ($0.id, $0.floor) }
      // Only who still wants what has been compacted is concerned.
      if revision > 0, floor >= revision { return hub.rejoinLater(handle) }
      watchers[id] = nil
      hub.remove(handle)
      write(end, id, isCreated: false)
    }
  }
}
