import Foundation

/// Where Python runs.
public enum Isolation: Sendable, Hashable {
    /// In a process of its own, which is restarted if it ends. Nothing that happens there can take the app with it.
    case helperProcess
    /// In the app's process. A crash of MLX takes the app; Python starts once and stays until the app ends.
    ///
    /// - Parameter library: libpython, or the binary of a Python framework; nil asks the interpreter for its own.
    case inProcess(library: URL? = nil)
}

/// How the runtime behaves.
public struct RuntimeOptions: Sendable {
    public var isolation: Isolation
    /// Most bytes of released buffers that MLX keeps; nil leaves MLX's own limit.
    public var cacheLimit: Int?
    /// Bytes beyond which MLX refuses, or waits, before it allocates more; nil leaves MLX's own limit.
    public var memoryLimit: Int?
    /// Never download models: what is not in the Hub's cache is not found.
    public var isOffline: Bool
    /// How long Python may take to be ready.
    public var startTimeout: Duration
    /// How long to wait before the helper is started again, for each time in a row that it ends. After the last of them
    /// has been used, the runtime ends.
    public var restartDelays: [Duration]
    /// A helper that lives so long has not ended in a row with the one before.
    public var healthyAfter: Duration
    /// Called with what Python prints and logs, from any thread.
    public var log: (@Sendable (LogLine) -> Void)?

    public init(
        isolation: Isolation = .helperProcess, cacheLimit: Int? = nil, memoryLimit: Int? = nil, isOffline: Bool = false,
        startTimeout: Duration = .seconds(30), restartDelays: [Duration] = [.seconds(1), .seconds(5)],
        healthyAfter: Duration = .seconds(60), log: (@Sendable (LogLine) -> Void)? = nil
    ) {
        self.isolation = isolation
        self.cacheLimit = cacheLimit
        self.memoryLimit = memoryLimit
        self.isOffline = isOffline
        self.startTimeout = startTimeout
        self.restartDelays = restartDelays
        self.healthyAfter = healthyAfter
        self.log = log
    }
}

/// A line that Python printed (`level` is "output") or logged.
public struct LogLine: Sendable, Hashable {
    public var level: String
    public var message: String
}

/// What the runtime talks to.
public struct RuntimeInformation: Sendable, Hashable {
    /// Version of mlx-smolvlm.
    public var package: String
    public var mlx: String
    public var python: String
    /// What MLX computes on: "gpu" or "cpu".
    public var device: String
    /// Version of the protocol.
    public var protocolVersion: Int
}

/// Whether the runtime can answer.
public enum RuntimeState: Sendable, Equatable {
    case running
    /// The helper has ended, and is started again. Models are loaded again when they are next used; sessions are lost.
    case restarting(attempt: Int)
    /// Shut down (nil), or given up.
    case ended(SmolVLMError?)
}

/// Which model to load.
public enum ModelSource: Sendable, Hashable {
    /// The tiny model that comes with the package; it knows coloured shapes.
    case demo
    /// A folder in Hugging Face layout, or a converted one.
    case folder(URL)
    /// A repository of the Hugging Face Hub, downloaded on first use.
    case hub(String, revision: String? = nil)
}

/// How far a download is.
public struct DownloadProgress: Sendable, Hashable {
    /// Bytes that are there, those of an earlier try included.
    public var doneBytes: Int
    /// Bytes in all, of the files that have begun: it grows in the first moments.
    public var totalBytes: Int
}

/// An adapter (LoRA, DoRA; of PEFT, mlx-lm or mlx-vlm) to use with a model, without merging.
public struct AdapterSource: Sendable, Hashable {
    /// Path of a folder, or name of a repository of the Hugging Face Hub.
    public var path: String
    /// What its change of the model is multiplied by.
    public var weight: Double

    public init(_ path: String, weight: Double = 1) {
        self.path = path
        self.weight = weight
    }
}

/// The type that a model computes in.
public enum DType: String, Sendable, Hashable {
    case bfloat16, float16, float32
}
