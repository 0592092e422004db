// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "SmolVLM",
    platforms: [.macOS(.v14)],
    products: [
        .library(name: "SmolVLM", targets: ["SmolVLM"]),
        .executable(name: "smolvlm-demo", targets: ["smolvlm-demo"]),
    ],
    targets: [
        .target(name: "CPythonRuntime"),
        .target(name: "SmolVLM", dependencies: ["CPythonRuntime"]),
        .executableTarget(name: "smolvlm-demo", dependencies: ["SmolVLM"]),
        .testTarget(
            name: "SmolVLMTests", dependencies: ["SmolVLM", "CPythonRuntime"], exclude: ["faults", "reference.py"]),
    ],
    swiftLanguageModes: [.v6]
)
