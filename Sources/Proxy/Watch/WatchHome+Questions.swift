internal import Reactor

/// Questions of client streams for progress: asked on all streams of the principal, of which the least answer counts.
extension WatchHome {
  private static let gathering = -1
  struct Parts {
    let question: WatchQuestion
    let sender: Int
    var missing: Int
    var least: ResponseHeader?
  }

  func ask(_ question: WatchQuestion, _ sender: Int) {
    if question.isEmpty {
      let key = WatchFeed.Key(
        principal: question.principal, requiresLeader: question.requiresLeader, kind: .empty,
        token: question.token)
      return feed(key)?.ask(question, from: sender) ?? answered(question, sender, nil)
    }
    let concerned = feeds.values.filter {
      $0.key.principal == question.principal && $0.key.requiresLeader == question.requiresLeader
        && $0.key.kind != .empty && $0.hasGroups
    }
    // A group without a stream is not up to date, whatever the streams say.
    let isBehind = [homeless, paused].joined().contains {
      $0.key.principal == question.principal && $0.key.requiresLeader == question.requiresLeader
    }
    if concerned.isEmpty || isBehind { return answered(question, sender, nil) }
    if concerned.count == 1 { return concerned[0].ask(question, from: sender) }
    gather(question, sender, concerned)
  }

  /// The least of several answers counts.
  private func gather(_ question: WatchQuestion, _ sender: Int, _ feeds: [WatchFeed]) {
    lastPart &+= 1
    parts[lastPart] = Parts(question: question, sender: sender, missing: feeds.count)
    let part = WatchQuestion(
      number: lastPart, principal: question.principal, requiresLeader: question.requiresLeader,
      token: question.token, isEmpty: false)
    for feed in feeds { feed.ask(part, from: Self.gathering) }
  }

  /// A stream has said how far it is; nil when it has ended.
  func answered(_ question: WatchQuestion, _ sender: Int, _ header: ResponseHeader?) {
    guard sender == Self.gathering else {
      let state = header.map { WatchState(header: $0, next: $0.revision + 1, from: 0, previousFrom: .max) }
      return publish(WatchNotice(.answer, to: UInt16(sender), group: question.number, state), state)
    }
    guard var part = parts[question.number] else { return }
    part.missing -= 1
    if let header, header.revision < part.least?.revision ?? .max { part.least = header }
    if part.missing > 0, header != nil {
      parts[question.number] = part
    } else {
      parts[question.number] = nil
      answered(part.question, part.sender, header == nil ? nil : part.least)
    }
  }
}
