import Foundation

/// What happens to a request.
enum Happening: Sendable {
    case event(Event)
    /// There will be no event any more.
    case failed(SmolVLMError)
}

/// Requests on their way, and who waits for their events.
final class Connection: Sendable {
    typealias Handler = @Sendable (Happening) -> Void

    private struct State {
        var handlers: [Int: (handler: Handler, model: Int?)] = [:]
        var failure: SmolVLMError?
        var problem: SmolVLMError?  // of no request: why the helper is about to end
    }

    private let state = Locked(State())
    private let carrier = Locked<(any Transport)?>(nil)
    private let log: (@Sendable (LogLine) -> Void)?

    init(log: (@Sendable (LogLine) -> Void)?) {
        self.log = log
    }

    /// The way to Python; set once, before anything is sent.
    var transport: (any Transport)? {
        get { carrier.with { $0 } }
        set { carrier.with { $0 = newValue } }
    }

    /// Whether requests can be sent.
    var isOpen: Bool { state.with { $0.failure == nil } }

    /// Whether nothing is in flight.
    var isIdle: Bool { state.with { $0.handlers.isEmpty } }

    /// Takes what comes from Python. Returns why there will be no more, if so.
    func take(_ incoming: Incoming) -> SmolVLMError? {
        switch incoming {
        case .output(let line): log?(LogLine(level: "output", message: line))
        case .event(let data): take(data)
        case .ended(let status, let lastOutput):
            return state.with { $0.problem } ?? .helperEnded(status: status, lastOutput: lastOutput)
        }
        return nil
    }

    private func take(_ data: Data) {
        guard let event = try? JSONDecoder().decode(Event.self, from: data) else {
            log?(LogLine(level: "error", message: "not an event: \(String(decoding: data.prefix(200), as: UTF8.self))"))
            return
        }
        guard let id = event.id else {
            if event.event == "error" {
                log?(LogLine(level: "error", message: event.message ?? ""))
                state.with { $0.problem = SmolVLMError(event) }
            } else {
                log?(LogLine(level: event.level ?? "info", message: event.message ?? ""))
            }
            return
        }
        let waiting = state.with { state in
            event.isLast ? state.handlers.removeValue(forKey: id) : state.handlers[id]
        }
        waiting?.handler(.event(event))
    }

    /// Ends all requests.
    func fail(_ error: SmolVLMError) {
        let waiting = state.with { state in
            state.failure = state.failure ?? error
            defer { state.handlers = [:] }
            return state.handlers.values
        }
        for (handler, _) in waiting { handler(.failed(error)) }
    }

    /// Sends a request; `handler` is called with each event, in order, from another thread.
    func send(_ request: Request, model: Int? = nil, handler: @escaping Handler) {
        do {
            let line = try request.line()
            try state.with { state in
                if let failure = state.failure { throw failure }
                state.handlers[request.id] = (handler, model)
            }
            transport?.send(line, request.attachments, id: request.id)
        } catch {
            handler(.failed((error as? SmolVLMError) ?? .closed))
        }
    }

    /// Ends a request; nothing happens if it has ended.
    func cancel(_ id: Int) {
        if state.with({ $0.handlers[id] != nil }) { transport?.cancel(id) }
    }

    /// Ends all answers of a model.
    func cancelAll(of model: Int) {
        for id in state.with({ $0.handlers.filter { $1.model == model }.map(\.key) }) { transport?.cancel(id) }
    }

    /// Sends a request and waits for its last event. Cancelling the task cancels the request.
    func call(
        _ name: String, _ fields: [String: JSONValue], progress: (@Sendable (Event) -> Void)? = nil
    ) async throws -> Event {
        try Task.checkCancellation()
        let request = Request(name: name, id: nextRequestID(), fields: fields)
        let event = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Event, any Error>) in
                send(request) { happening in
                    switch happening {
                    case .failed(let error): continuation.resume(throwing: error)
                    case .event(let event) where event.event == "error":
                        continuation.resume(throwing: SmolVLMError(event))
                    case .event(let event) where event.isLast: continuation.resume(returning: event)
                    case .event(let event): progress?(event)
                    }
                }
                if Task.isCancelled { cancel(request.id) }  // before it was sent, there was nothing to cancel
            }
        } onCancel: {
            cancel(request.id)
        }
        try Task.checkCancellation()
        return event
    }
}
