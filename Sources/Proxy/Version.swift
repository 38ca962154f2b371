/// What this build calls itself.
public enum Version {
  /// The release number, as `ringway version`, the start-up log line and the metrics show it.
  public static let text = "0.1.0"
}
