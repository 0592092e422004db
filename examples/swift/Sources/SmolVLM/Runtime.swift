/// Python with mlx-smolvlm, and the models that it has loaded.
///
/// ```swift
/// let runtime = try await Runtime.start(.discovered())
/// let model = try await runtime.loadModel(.demo)
/// for try await token in model.respond(to: "What shape is it?", images: [.file(picture)]) {
///     print(token.text, terminator: "")
/// }
/// ```
///
/// A helper process ends with the last reference to its runtime, models and sessions, and with the app.
public final class Runtime: Sendable {
    private let core: Core

    private init(_ core: Core) {
        self.core = core
    }

    /// Starts Python, and waits until it is ready.
    ///
    /// - Throws: `SmolVLMError`: no Python, no package, another protocol, or not ready in time.
    public static func start(_ environment: PythonEnvironment, options: RuntimeOptions = .init()) async throws
        -> Runtime
    {
        let core = Core(environment, options)
        try await core.connect()
        return Runtime(core)
    }

    /// What it talks to.
    public var information: RuntimeInformation {
        core.information
            ?? RuntimeInformation(package: "", mlx: "", python: "", device: "", protocolVersion: protocolVersion)
    }

    /// The state now, and each one that follows. Every stream gets all of them.
    public var states: AsyncStream<RuntimeState> { core.states }

    /// Loads a model. It takes seconds, and minutes if it is downloaded; cancelling the task ends it.
    ///
    /// - Parameters:
    ///   - adapters: used with it from now on; load the model again for others, or for none.
    ///   - dtype: nil is bfloat16 on a GPU and float32 on a CPU.
    ///   - progress: called with the share of the download that is done, from 0 to 1.
    ///   - download: called with the bytes of the download, where there is one.
    public func loadModel(
        _ source: ModelSource, adapters: [AdapterSource] = [], dtype: DType? = nil,
        progress: (@Sendable (Double) -> Void)? = nil, download: (@Sendable (DownloadProgress) -> Void)? = nil
    ) async throws -> Model {
        let reference = ModelReference(source: source, dtype: dtype, adapters: adapters)
        try await core.load(reference, progress: progress, download: download)
        return Model(core: core, reference: reference)
    }

    /// Ends the helper, or, in process, unloads the models; Python stays. Answers in flight end with `closed`.
    public func shutDown() async {
        await core.shutDown()
    }
}
