import Reactor
import Testing

@testable import Proxy

@Suite struct ProbeQuestionTests {
  private static let endpoint = Endpoint(
    slot: 0, name: "10.0.0.1:2379", addresses: [.v4(0x0A00_0001, port: 2379)], priority: 0, weight: 0)

  private static func verdicts(_ parts: [String], ended: Bool = false) -> [ProbeQuestion.Verdict] {
    var question = ProbeQuestion(.request, endpoint: endpoint, tls: nil)
    var verdicts = parts.map { question.heard(Array($0.utf8)[...], ended: false) }
    if ended { verdicts.append(question.heard([], ended: true)) }
    return verdicts
  }

  private static let version = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

  @Test func asksForLifeAndThenForHealth() {
    let text = String(
      decoding: ProbeQuestion(.request, endpoint: Self.endpoint, tls: nil).bytes, as: UTF8.self)
    #expect(text.hasPrefix("GET /version HTTP/1.1\r\nHost: 10.0.0.1:2379\r\n\r\nGET /health HTTP/1.1\r\n"))
  }

  @Test func aHealthyMemberLivesAndOneWithoutLeaderIsSick() {
    #expect(Self.verdicts([Self.version, "HTTP/1.1 200 OK\r\n\r\n"]) == [.more, .lives])
    #expect(Self.verdicts([Self.version + "HTTP/1.1 503 Service Unavailable\r\n\r\n"]) == [.sick])
  }

  @Test func otherServersThatAnswerAnythingLive() {
    #expect(Self.verdicts(["SSH-2.0-OpenSSH\r\n"]) == [.lives])
    #expect(
      Self.verdicts(["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found\r\n\r\n"]).last == .lives)
    #expect(Self.verdicts([], ended: true) == [.lives], "only a living process ends a stream")
  }

  @Test func answersMayComeInAnyPieces() {
    let all = Array((Self.version + "HTTP/1.1 503 Service Unavailable\r\n\r\n").utf8)
    for cut in 1..<all.count {
      var question = ProbeQuestion(.request, endpoint: Self.endpoint, tls: nil)
      let first = question.heard(all[..<cut], ended: false)
      let last = first == .more ? question.heard(all[cut...], ended: false) : first
      #expect(last == .sick, "cut at \(cut)")
    }
  }

  @Test func aGreetingIsAClientHelloAndAnyByteAnswersIt() throws {
    let tls = try TLSContext.client(trustedCAFile: nil)
    var question = ProbeQuestion(.greeting, endpoint: Self.endpoint, tls: tls)
    #expect(question.bytes.prefix(2) == [22, 3])
    #expect(question.heard([21], ended: false) == .lives)
  }
}
