/// Which watches of a stream an answer about progress speaks of: those that stood when it was asked for.
///
/// etcd answers in order, but not every question. So an answer is taken for one to the oldest question that may be without:
/// what stood then has stood at any later one, too.
struct StandingWatches {
  private struct Run {
    let last: Int64
    var questions: Int
  }

  private var runs: [Run] = []

  /// A question is sent while the watches up to number `last` stand, or nobody knows which.
  mutating func asked(_ last: Int64?) {
    let known = runs.last?.last ?? 0
    if runs.isEmpty || last ?? known != known && runs.count < Limits.watchQuestions {
      runs.append(Run(last: last ?? 0, questions: 1))
    } else {
      runs[runs.count - 1].questions += 1
    }
  }

  /// An answer has come.
  ///
  /// - Returns: the last watch that it speaks of.
  mutating func answered() -> Int64 {
    guard let oldest = runs.first else { return 0 }
    if oldest.questions == 1 { runs.removeFirst() } else { runs[0].questions -= 1 }
    return oldest.last
  }
}
