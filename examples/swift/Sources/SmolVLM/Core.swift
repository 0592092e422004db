import Foundation

/// A model that a program has loaded: what it is, whatever helper holds it now.
final class ModelReference: Sendable {
    let key = nextRequestID()
    let source: ModelSource
    let dtype: DType?
    let adapters: [AdapterSource]
    let isUnloaded = Locked(false)

    init(source: ModelSource, dtype: DType?, adapters: [AdapterSource]) {
        self.source = source
        self.dtype = dtype
        self.adapters = adapters
    }

    var fields: [String: JSONValue] {
        var fields: [String: JSONValue] = ["dtype": JSONValue(dtype?.rawValue)]
        if !adapters.isEmpty {
            fields["adapters"] = .array(
                adapters.map { .object(["path": .string($0.path), "weight": .number($0.weight)]) })
        }
        switch source {
        case .demo: break
        case .folder(let url): fields["model"] = .string(url.pathOrAddress)
        case .hub(let name, let revision):
            fields["model"] = .string(name)
            fields["revision"] = JSONValue(revision)
        }
        return fields
    }
}

/// The connection to Python, renewed when a helper ends, and the models that it holds.
final class Core: Sendable {
    private struct State {
        var phase = RuntimeState.restarting(attempt: 0)
        var connection: Connection?
        var information: RuntimeInformation?
        var endsInARow = 0
        var readySince = ContinuousClock.now
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        var observers: [Int: AsyncStream<RuntimeState>.Continuation] = [:]
        var loads: [Int: Task<Int, any Error>] = [:]  // of the connection, by model
    }

    private let environment: PythonEnvironment
    private let options: RuntimeOptions
    private let state = Locked(State())

    init(_ environment: PythonEnvironment, _ options: RuntimeOptions) {
        self.environment = environment
        self.options = options
    }

    deinit {
        let (connection, observers) = state.with { ($0.connection, Array($0.observers.values)) }
        connection?.transport?.stop()
        for observer in observers { observer.finish() }
    }

    var information: RuntimeInformation? { state.with { $0.information } }

    // MARK: Connecting

    /// Starts Python and waits until it is ready.
    func connect() async throws {
        let connection = Connection(log: options.log)
        do {
            let transport = try await makeTransport(for: connection)
            connection.transport = transport
            let information = try await greet(connection)
            guard become(connection, information) else {
                transport.stop()
                throw SmolVLMError.closed
            }
        } catch {
            connection.transport?.stop()
            throw error
        }
    }

    private func makeTransport(for connection: Connection) async throws -> any Transport {
        var environment = environment
        if options.isOffline { environment.variables["HF_HUB_OFFLINE"] = "1" }
        let handler: @Sendable (Incoming) -> Void = { [weak self] incoming in
            guard let failure = connection.take(incoming) else { return }
            // First, so that whoever sees the failure and asks again waits for the next connection.
            self?.lost(connection, failure)
            connection.fail(failure)
        }
        return try await withCheckedThrowingContinuation { continuation in
            SmolVLM.start("SmolVLM start") { [environment, isolation = options.isolation] in
                continuation.resume(
                    with: Result {
                        switch isolation {
                        case .helperProcess:
                            try HelperTransport(environment, handler: handler)
                        case .inProcess(let library):
                            try InProcessTransport(environment, library: library, handler: handler)
                        }
                    })
            }
        }
    }

    private func greet(_ connection: Connection) async throws -> RuntimeInformation {
        let timer = Task { [timeout = options.startTimeout] in
            try await Task.sleep(for: timeout)
            connection.fail(.python(kind: "TimeoutError", message: "Python was not ready within \(timeout)"))
            connection.transport?.kill()
        }
        defer { timer.cancel() }
        let ready = try await connection.call("hello", ["protocol": .integer(protocolVersion)])
        let found = ready.protocol ?? 0
        guard found == protocolVersion else {
            throw SmolVLMError.incompatible(found: "protocol \(found)", needed: "protocol \(protocolVersion)")
        }
        let versions = ready.versions ?? [:]
        if case .inProcess = options.isolation, versions["mlx"] == "0.32.1" {
            throw SmolVLMError.incompatible(found: "mlx 0.32.1, which aborts when a thread ends", needed: "another mlx")
        }
        if options.cacheLimit != nil || options.memoryLimit != nil {
            let limits: [String: JSONValue] = [
                "cache_bytes": JSONValue(options.cacheLimit), "memory_bytes": JSONValue(options.memoryLimit),
            ]
            _ = try await connection.call("limits", limits)
        }
        return RuntimeInformation(
            package: versions["mlx_smolvlm"] ?? "", mlx: versions["mlx"] ?? "", python: versions["python"] ?? "",
            device: ready.device ?? "", protocolVersion: found)
    }

    /// Answers requests by this connection from now on, unless the runtime has been shut down meanwhile.
    private func become(_ connection: Connection, _ information: RuntimeInformation) -> Bool {
        let isWanted = state.with { state -> Bool in
            if case .ended = state.phase { return false }
            state.connection = connection
            state.information = information
            state.readySince = .now
            state.loads = [:]
            return true
        }
        if isWanted { enter(.running) }
        if isWanted, !connection.isOpen { lost(connection, .helperEnded(status: -1, lastOutput: "")) }
        return isWanted
    }

    /// A connection has ended: renew it, if it was the current one.
    private func lost(_ connection: Connection, _ failure: SmolVLMError) {
        let isCurrent = state.with { state -> Bool in
            guard state.connection === connection else { return false }
            state.connection = nil
            if ContinuousClock.now - state.readySince > options.healthyAfter { state.endsInARow = 0 }
            return true
        }
        if isCurrent { restart(after: failure) }
    }

    private func restart(after failure: SmolVLMError) {
        let attempt = state.with { state in
            state.endsInARow += 1
            return state.endsInARow
        }
        guard attempt <= options.restartDelays.count, case .helperProcess = options.isolation else {
            enter(.ended(failure))
            return
        }
        guard enter(.restarting(attempt: attempt)) else { return }
        Task { [weak self, delay = options.restartDelays[attempt - 1]] in
            try? await Task.sleep(for: delay)
            do {
                try await self?.connect()
            } catch {
                self?.restart(after: (error as? SmolVLMError) ?? .python(kind: "Error", message: "\(error)"))
            }
        }
    }

    // MARK: States

    /// Tells all who watch or wait. False if the runtime has ended before.
    @discardableResult
    private func enter(_ phase: RuntimeState) -> Bool {
        var waiters: [CheckedContinuation<Void, Never>] = []
        var finished: [AsyncStream<RuntimeState>.Continuation] = []
        let isNew = state.with { state in
            if case .ended = state.phase { return false }
            state.phase = phase
            for observer in state.observers.values { observer.yield(phase) }
            if case .ended = phase {
                finished = Array(state.observers.values)
                state.observers = [:]
            }
            if case .restarting = phase { return true }
            waiters = Array(state.waiters.values)
            state.waiters = [:]
            return true
        }
        // Outside of the lock: both run code of others.
        for observer in finished { observer.finish() }
        for waiter in waiters { waiter.resume() }
        return isNew
    }

    var states: AsyncStream<RuntimeState> {
        let (stream, continuation) = AsyncStream.makeStream(of: RuntimeState.self)
        let number = nextRequestID()
        continuation.onTermination = { [weak self] _ in
            self?.state.with { _ = $0.observers.removeValue(forKey: number) }
        }
        let hasEnded = state.with { state in
            continuation.yield(state.phase)
            if case .ended = state.phase { return true }
            state.observers[number] = continuation
            return false
        }
        if hasEnded { continuation.finish() }
        return stream
    }

    /// The connection, once there is one.
    func connection() async throws -> Connection {
        while true {
            try Task.checkCancellation()
            if let connection = try state.with({ state -> Connection? in
                if case .ended(let failure) = state.phase { throw failure ?? SmolVLMError.closed }
                if case .running = state.phase { return state.connection }
                return nil
            }) {
                return connection
            }
            await changed()
        }
    }

    private func changed() async {
        let number = nextRequestID()
        await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                let isDue = state.with { state in
                    if case .restarting = state.phase, !Task.isCancelled {
                        state.waiters[number] = continuation
                        return false
                    }
                    return true
                }
                if isDue { continuation.resume() }
            }
        } onCancel: {
            state.with { $0.waiters.removeValue(forKey: number) }?.resume()
        }
    }

    func shutDown() async {
        let (connection, loads) = state.with { state in
            defer { state.connection = nil }
            return (state.connection, Array(state.loads.values))
        }
        enter(.ended(nil))
        guard let connection else { return }
        if case .inProcess = options.isolation {
            for load in loads {
                guard let number = try? await load.value else { continue }
                _ = try? await connection.call("unload", ["model": .integer(number)])
            }
        }
        connection.fail(.closed)
        connection.transport?.stop()
    }

    // MARK: Models

    /// Loads a model for the first time. Cancelling the task cancels the load.
    func load(
        _ model: ModelReference, progress: (@Sendable (Double) -> Void)?,
        download: (@Sendable (DownloadProgress) -> Void)?
    ) async throws {
        let connection = try await connection()
        let loaded = try await connection.call("load", model.fields) { event in
            if let fraction = event.fraction { progress?(fraction) }
            if let done = event.doneBytes, let total = event.totalBytes {
                download?(DownloadProgress(doneBytes: done, totalBytes: total))
            }
        }
        guard let number = loaded.id else { return }
        state.with { state in
            if state.connection === connection { state.loads[model.key] = Task { number } }
        }
    }

    /// The connection and the number that it knows a model by, which is loaded there if need be.
    func place(of model: ModelReference) async throws -> (connection: Connection, number: Int) {
        if model.isUnloaded.with({ $0 }) { throw SmolVLMError.closed }
        let connection = try await connection()
        let load = state.with { state in
            if let load = state.loads[model.key], state.connection === connection { return load }
            let load = Task { try await connection.call("load", model.fields).id ?? 0 }
            if state.connection === connection { state.loads[model.key] = load }
            return load
        }
        do {
            return (connection, try await load.value)
        } catch {
            state.with { state in
                if state.connection === connection { state.loads[model.key] = nil }
            }
            throw error
        }
    }

    func unload(_ model: ModelReference) async throws {
        model.isUnloaded.with { $0 = true }
        let (connection, load) = state.with { ($0.connection, $0.loads.removeValue(forKey: model.key)) }
        guard let connection, let load else { return }
        _ = try await connection.call("unload", ["model": .integer(try await load.value)])
    }

    func cancelAll(of model: ModelReference) {
        state.with { $0.connection }?.cancelAll(of: model.key)
    }
}
