// swift-tools-version: 6.2
import PackageDescription

/// Swift 6 mode, every unsafe use written down, every existential visible, warnings are errors.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .enableUpcomingFeature("ExistentialAny"),
  .treatAllWarnings(as: .error),
  .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

/// Tests may be shorter than the product: they do not write `unsafe` at every fence they poke through.
let relaxed: [SwiftSetting] = [.swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny")]

let package = Package(
  name: "ringway",
  products: [.executable(name: "ringway", targets: ["Ringway"])],
  targets: [
    .target(
      name: "CUring",
      cSettings: [.define("_GNU_SOURCE")],
      linkerSettings: [
        .linkedLibrary("uring"), .linkedLibrary("cares"), .linkedLibrary("ssl"), .linkedLibrary("crypto"),
        .linkedLibrary("nghttp2"),
      ]),
    .target(name: "Reactor", dependencies: ["CUring"], swiftSettings: strict),
    .target(name: "Proxy", dependencies: ["Reactor", "CUring"], swiftSettings: strict),
    .executableTarget(name: "Ringway", dependencies: ["Proxy"], swiftSettings: strict),
    .target(name: "Simulation", dependencies: ["Reactor"], path: "Tests/Simulation", swiftSettings: relaxed),
    .testTarget(name: "ReactorTests", dependencies: ["Reactor", "CUring"], swiftSettings: relaxed),
    .testTarget(
      name: "ProxyTests", dependencies: ["Proxy", "Reactor", "Simulation", "CUring"], swiftSettings: relaxed),
  ]
)
