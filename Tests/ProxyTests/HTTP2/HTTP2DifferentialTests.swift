import CNGHTTP2
import Reactor
import Simulation
import Testing

@testable import Proxy

/// The same frames, good, odd and damaged, for our server and for nghttp2's; the verdicts must agree.
@Suite struct HTTP2DifferentialTests {
  /// What a server says to a frame.
  enum Verdict: Equatable {
    case fine
    /// Streams that were reset.
    case streams(Set<UInt32>)
    case connection(UInt32)

    init(_ frames: [TestFrame]) {
      if let last = frames.first(where: { $0.type == 7 && $0.goAwayCode != 0 }) {
        self = .connection(last.goAwayCode)
      } else {
        let resets = Set(frames.filter { $0.type == 3 }.map(\.stream))
        self = resets.isEmpty ? .fine : .streams(resets)
      }
    }

    var isConnection: Bool { if case .connection = self { true } else { false } }
  }

  @Test func verdictsAgreeWithNGHTTP2() {
    var tally = Tally()
    for seed in Seeds.run(400) {
      if let failure = Self.compare(seed, &tally) {
        Issue.record("\(failure); repeat with RINGWAY_SEED=\(seed)")
        return
      }
    }
    // One seed alone may end early; many must have had something to agree on.
    guard tally.sequences >= 100 else { return }
    #expect(tally.agreedErrors > tally.sequences / 3, "\(tally)")
    #expect(tally.frames > tally.sequences * 5, "\(tally)")
  }

  struct Tally {
    var sequences = 0
    var frames = 0
    var agreedErrors = 0
    var agreedStreamErrors = 0
    var justified: [String: Int] = [:]
  }

  static func compare(_ seed: UInt64, _ tally: inout Tally) -> String? {
    var random = SimRandom(seed: seed)
    let ours = HTTP2TestConnection(.server, settings())
    let reference = NGHTTP2Server()
    _ = ours.feed(clientPreface)
    _ = reference.judge(clientPreface)
    _ = ours.sent()
    var source = FrameSource()
    tally.sequences += 1
    var answers: [TestFrame] = []
    var trace: [String] = []
    for _ in 0..<120 {
      let frame = source.next(&random)
      let before = source
      trace.append("\(frame)")
      for piece in cut(frame.bytes, &random) {
        ours.feed(piece) { event in
          if case .data(let stream, _, let bytes, _) = event { ours.session.credit(stream, bytes.count) }
        }
      }
      let mine = Verdict(ours.sent())
      answers += reference.judge(frame.bytes)
      tally.frames += 1
      // nghttp2 judges fields as they come, we judge the whole block.
      if ours.session.blockStream != 0 {
        source.note(frame, .fine)
        continue
      }
      let theirs = Verdict(answers)
      answers = []
      if mine == theirs || (mine.isConnection && theirs.isConnection) {
        if mine.isConnection {
          tally.agreedErrors += 1
          return nil
        }
        if mine != .fine { tally.agreedStreamErrors += 1 }
      } else if let reason = Difference.reason(frame, before, mine, theirs, authority(ours)) {
        tally.justified[reason, default: 0] += 1
        // The two no longer know the same streams.
        return nil
      } else {
        return "\(frame) of \(source.recent): we say \(mine), nghttp2 says \(theirs), behind\n"
          + trace.joined(separator: "\n")
      }
      source.note(frame, mine)
      // With a GOAWAY and no stream, nghttp2 regards the connection as over and answers no more.
      if frame.type == FrameType.goAway { return nil }
    }
    return nil
  }

  /// What the last request says of the server, in one; a `#` for a host that is empty.
  static func authority(_ connection: HTTP2TestConnection) -> String {
    let list = connection.context.received
    let host = list.value(of: .host).map { $0.isEmpty ? "#" : headerText($0) } ?? ""
    return host + (list.value(of: .authority).map { headerText($0) } ?? "")
  }

  static func settings() -> HTTP2Settings {
    var settings = HTTP2TestConnection.settings()
    settings.pingMinimum = .zero
    settings.pingsWithoutStream = true
    settings.connectionWindow = 65_535
    return settings
  }

  static func cut(_ bytes: [UInt8], _ random: inout SimRandom) -> [[UInt8]] {
    guard random.chance(300) else { return [bytes] }
    let place = random.below(bytes.count)
    return [Array(bytes[..<place]), Array(bytes[place...])].filter { !$0.isEmpty }
  }
}

/// Where we differ from nghttp2 1.52 on purpose.
enum Difference {
  typealias Verdict = HTTP2DifferentialTests.Verdict

  private static let deprecated = "priorities are deprecated, so what they say is not judged (5.3.2)"

  static func reason(
    _ frame: TestFrame, _ source: FrameSource, _ mine: Verdict, _ theirs: Verdict, _ authority: String
  ) -> String? {
    let isOver = source.isOver(frame.stream)
    switch (frame.type, mine, theirs) {
    case (FrameType.data, .streams([frame.stream]), .fine) where isOver:
      return "DATA on a closed stream is told to the peer; nghttp2 ignores it (RFC 9113 5.1 allows both)"
    case (FrameType.headers, .streams([frame.stream]), .fine) where source.hasOddScheme:
      return "a path begins with a slash under any scheme; nghttp2 asks that of http and https"
    case (FrameType.data, .connection(6), .fine) where isOver:
      return "a padded frame has room for its padding's length (6.1), also on a closed stream"
    case (FrameType.headers, .connection, .fine) where isOver,
      (FrameType.continuation, .connection, .fine) where isOver,
      (FrameType.headers, .connection, .fine) where frame.stream < source.highest:
      return "HEADERS that use a number again end the connection (5.1.1); nghttp2 ignores them"
    case (FrameType.data, .streams([frame.stream]), .connection(5)),
      (FrameType.headers, .streams([frame.stream]), .connection(5)),
      (FrameType.continuation, .streams([frame.stream]), .connection(5)):
      return
        "a frame behind END_STREAM is an error of the stream (5.1, half-closed); nghttp2 ends the connection"
    case (_, .fine, .connection(5)) where isOver && source.ended.contains(frame.stream):
      return "frames on a stream that we have just reset are passed over, whatever came before"
    case (FrameType.windowUpdate, .streams([frame.stream]), .connection(1)):
      return "WINDOW_UPDATE of zero is an error of the stream (6.9); nghttp2 ends the connection"
    case (FrameType.priority, _, .connection), (FrameType.headers, _, .connection(1)),
      (FrameType.continuation, _, .connection(1)):
      if frame.type == FrameType.priority || source.hasPriority {
        return deprecated
      }
      return nil
    case (FrameType.settings, .connection, .fine):
      return "a bad value is an error even if a good one for the same setting follows (6.5.3)"
    case (FrameType.goAway, .fine, .connection(1)):
      return "the last stream of a client's GOAWAY means nothing to a server that opens none"
    case (FrameType.headers, .fine, .streams), (FrameType.continuation, .fine, .streams):
      if source.hasPriority { return deprecated }
      if authority.contains(where: { "\"#/<>?\\^`{|}".contains($0) }) {
        return "clients of etcd send an :authority that is none, and nobody looks at host"
      }
      return authority.isEmpty
        ? "a request without :authority and host is allowed (8.3.1); nghttp2 resets it" : nil
    default: return nil
    }
  }
}
