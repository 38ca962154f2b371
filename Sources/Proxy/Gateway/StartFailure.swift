/// Why a start did not succeed, in words for the operator. The exit status is 1.
struct StartFailure: Error, Equatable {
  /// etcd's own text where etcd has one, since scripts match it.
  let text: String

  /// The exit status.
  let status: Int32

  init(_ text: String, status: Int32 = 1) {
    self.text = text
    self.status = status
  }
}
