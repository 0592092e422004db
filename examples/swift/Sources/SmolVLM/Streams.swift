import Foundation

/// A request that is about to be sent, or was sent, and may be cancelled at any time.
private final class Flight: Sendable {
    private struct State {
        var isCancelled = false
        var task: Task<Void, Never>?
        var place: (connection: Connection, id: Int)?
    }

    private let state = Locked(State())

    func set(_ task: Task<Void, Never>) {
        let isCancelled = state.with { state in
            state.task = task
            return state.isCancelled
        }
        if isCancelled { task.cancel() }
    }

    /// Sends a request, unless it has been cancelled before.
    func send(_ request: Request, by connection: Connection, model: Int, _ handler: @escaping Connection.Handler) {
        let isCancelled = state.with { state in
            state.place = (connection, request.id)
            return state.isCancelled
        }
        if isCancelled { return handler(.failed(.closed)) }
        connection.send(request, model: model, handler: handler)
        if state.with({ $0.isCancelled }) { connection.cancel(request.id) }
    }

    func cancel() {
        let (task, place) = state.with { state in
            state.isCancelled = true
            return (state.task, state.place)
        }
        task?.cancel()
        place?.connection.cancel(place?.id ?? 0)
    }
}

extension Core {
    /// The events of a request as a stream.
    ///
    /// - Parameters:
    ///   - begin: makes the request, and says by which connection it goes.
    ///   - model: whose request it is.
    ///   - element: what to yield for an event, if anything.
    ///   - ended: called once, whatever happens.
    func stream<Element: Sendable>(
        of model: ModelReference, begin: @escaping @Sendable () async throws -> (Connection, Request),
        ended: @escaping @Sendable () -> Void = {},
        element: @escaping @Sendable (Event, Connection) -> Element?
    ) -> AsyncThrowingStream<Element, any Error> {
        let (stream, continuation) = AsyncThrowingStream<Element, any Error>.makeStream()
        let flight = Flight()
        continuation.onTermination = { reason in
            if case .cancelled = reason { flight.cancel() }
        }
        let task = Task { [self] in
            do {
                let (connection, request) = try await begin()
                flight.send(request, by: connection, model: model.key) { [self] happening in
                    switch happening {
                    case .failed(let error):
                        continuation.finish(throwing: error)
                        ended()
                    case .event(let event) where event.event == "error":
                        continuation.finish(throwing: SmolVLMError(event))
                        ended()
                    case .event(let event) where event.isLast:
                        continuation.finish()
                        ended()
                    case .event(let event):
                        if let element = element(event, connection) { continuation.yield(element) }
                    }
                    _ = self  // a runtime stays as long as its answers
                }
            } catch {
                continuation.finish(throwing: error)
                ended()
            }
        }
        flight.set(task)
        return stream
    }

    /// The tokens of an answer.
    func tokens(
        of model: ModelReference, begin: @escaping @Sendable () async throws -> (Connection, Request)
    ) -> AsyncThrowingStream<Token, any Error> {
        stream(of: model, begin: begin) { event, _ in event.event == "token" ? event.token : nil }
    }
}

/// Carries live frames to Python, once it wants them.
final class FramePump: Sendable {
    private struct State {
        var place: (connection: Connection, source: Int)?
        var hasFinished = false
    }

    private let frames: LiveFrames
    private let state = Locked(State())

    init(_ frames: LiveFrames) {
        self.frames = frames
    }

    /// Frames go there from now on.
    func start(_ connection: Connection, source: Int) {
        state.with { $0.place = (connection, source) }
        run()
    }

    /// Hands over what waits.
    func run() {
        guard let (connection, source) = state.with({ $0.place }), let transport = connection.transport else { return }
        transport.enqueue { [self] in
            while let (pixels, seconds) = frames.take() {
                _ = transport.push(pixels, seconds: seconds, source: source)
            }
            let finishes = state.with { state in
                defer { state.hasFinished = state.hasFinished || frames.hasEnded }
                return frames.hasEnded && !state.hasFinished
            }
            if finishes {
                let fields: [String: JSONValue] = ["source": .integer(source)]
                connection.send(Request(name: "finish_frames", id: nextRequestID(), fields: fields)) { _ in }
            }
        }
    }
}
