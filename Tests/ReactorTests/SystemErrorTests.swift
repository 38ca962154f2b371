import Testing
import Reactor
@Suite struct SystemErrorTests {
  @Test func readsAsGoPrintsIt() { #expect(SystemError(code: 111).description == "connection refused") }
}
