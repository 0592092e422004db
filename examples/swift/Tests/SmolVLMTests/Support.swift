import Foundation
import Testing

@testable import SmolVLM

/// All tests, one after the other: they count threads and measure time.
@Suite(.serialized, .enabled(if: python != nil, "set MLX_SMOLVLM_PYTHON to a Python that has mlx-smolvlm"))
struct AllTests {}

let python = ProcessInfo.processInfo.environment["MLX_SMOLVLM_PYTHON"].map { URL(fileURLWithPath: $0) }
let isSlow = ProcessInfo.processInfo.environment["SMOLVLM_SLOW_TESTS"] != nil
let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
let demo = checkout.appendingPathComponent("mlx_smolvlm/demo")
let faults = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("faults")
let picture = demo.appendingPathComponent("picture.png")
let second = demo.appendingPathComponent("second.png")
let clip = demo.appendingPathComponent("clip.mp4")
let color = "What color is the shape?"
let way = "Which way does the shape move?"
/// An answer that takes seconds: tokens at random, by a seed for which no end comes soon.
let endless = GenerationOptions(maxTokens: 900, temperature: 1000, seed: 3)

/// The Python of the tests, with the package of this checkout.
var environment: PythonEnvironment {
    PythonEnvironment(executable: python ?? URL(fileURLWithPath: "/none"), extraSearchPaths: [checkout, faults])
}

enum Place: String, CaseIterable, Sendable {
    case helper, inProcess

    var isolation: Isolation { self == .helper ? .helperProcess : .inProcess() }
}

/// Runtimes that most tests share.
actor Shared {
    static let shared = Shared()
    private var pairs: [Place: Task<(Runtime, Model), any Error>] = [:]

    func pair(_ place: Place) async throws -> (Runtime, Model) {
        let task =
            pairs[place]
            ?? Task {
                let runtime = try await Runtime.start(environment, options: .init(isolation: place.isolation))
                return (runtime, try await runtime.loadModel(.demo))
            }
        pairs[place] = task
        return try await task.value
    }
}

func sharedModel(_ place: Place) async throws -> Model {
    try await Shared.shared.pair(place).1
}

struct Answer: Codable, Equatable, Sendable {
    var text: String
    var ids: [Int]
}

/// What Python answers; made once.
struct Reference: Sendable {
    var answers: [String: Answer]
    var pixels: Data
    var adapter: AdapterSource

    static let made = Result {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("smolvlm-\(UUID()).rgb")
        defer { try? FileManager.default.removeItem(at: file) }
        let process = Process()
        process.executableURL = python
        process.arguments = [
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("reference.py").path,
            file.path,
        ]
        process.environment = ProcessInfo.processInfo.environment.merging(["PYTHONPATH": checkout.path]) { $1 }
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        return Reference(
            answers: try JSONDecoder().decode([String: Answer].self, from: data), pixels: try Data(contentsOf: file),
            adapter: AdapterSource(file.path + ".adapter", weight: 0.5))
    }

    static func answer(_ name: String) throws -> Answer {
        try #require(try made.get().answers[name])
    }
}

/// A Hub on this machine, which has the files of a folder as the repository owner/name.
final class FakeHub {
    let address: String
    private let process = Process()

    init(_ folder: URL) throws {
        process.executableURL = python
        process.arguments = [checkout.appendingPathComponent("tests/support/fake_hub.py").path, folder.path]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        address = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func stop() {
        kill(process.processIdentifier, SIGKILL)  // Foundation's processes may inherit that they ignore SIGTERM
    }
}

func read(_ stream: some AsyncSequence<Token, any Error>) async throws -> Answer {
    var answer = Answer(text: "", ids: [])
    for try await token in stream {
        answer.text += token.text
        if let id = token.id { answer.ids.append(id) }
    }
    return answer
}

/// The error that a stream throws.
func failure(_ stream: some AsyncSequence<Token, any Error>) async -> SmolVLMError? {
    do {
        for try await _ in stream {}
        return nil
    } catch {
        return error as? SmolVLMError
    }
}

/// Waits until something holds, and says whether it does within the time.
func eventually(
    _ seconds: Double = 10, isolation: isolated (any Actor)? = #isolation, _ holds: () async throws -> Bool
) async rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < end {
        if try await holds() { return true }
        try? await Task.sleep(for: .milliseconds(10))
    }
    return false
}

/// The helper that has a model now; this process where there is none.
func process(of model: Model) async throws -> pid_t {
    let transport = try await model.core.connection().transport
    return (transport as? HelperTransport)?.processIdentifier ?? getpid()
}

/// Whether a process is there, dead ones that nobody has waited for included.
func isAlive(_ process: pid_t) -> Bool {
    kill(process, 0) == 0
}

/// Threads of a process; 0 where the system has no /proc.
func threads(of process: pid_t = getpid()) -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task").count) ?? 0
}

/// Resident memory of a process, in bytes; 0 where the system has no /proc.
func memory(of process: pid_t) -> Int {
    let fields = (try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8))?.split(separator: " ") ?? []
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4096 : 0
}

/// RGB pixels as a camera hands them over: BGRA, with padded rows.
func camera(_ rgb: Data, width: Int, height: Int, padding: Int) throws -> Pixels {
    var bytes = Data(capacity: (4 * width + padding) * height)
    for row in 0..<height {
        for column in 0..<width {
            let pixel = 3 * (row * width + column)
            bytes.append(contentsOf: [rgb[pixel + 2], rgb[pixel + 1], rgb[pixel], 255])
        }
        bytes.append(contentsOf: [UInt8](repeating: 77, count: padding))
    }
    return try Pixels(bytes, width: width, height: height, bytesPerRow: 4 * width + padding, format: .bgra)
}

/// A frame of one colour with a bar that moves.
func frame(_ number: Int, width: Int = 64, height: Int = 48) throws -> Pixels {
    let bar = number % width
    let row = (0..<width).flatMap { column -> [UInt8] in column <= bar ? [200, 30, 30, 255] : [20, 20, 20, 255] }
    let data = Data((0..<height).flatMap { _ in row })
    return try Pixels(data, width: width, height: height, bytesPerRow: 4 * width, format: .bgra)
}
