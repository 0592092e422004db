import Foundation

/// A model that answers.
public struct Model: Sendable {
    let core: Core
    let reference: ModelReference

    /// Answers a prompt about images and videos, which stand before it, unless `<image>` and `<video>` in it place them.
    ///
    /// The answer is made whether or not its tokens are read. It is cancelled when the task that reads it is cancelled,
    /// when the last reference to the stream goes, and by `cancelAll`. A loop that is left while the stream is held
    /// elsewhere does not cancel it. What is wrong with the request is thrown where the first token is read.
    public func respond(
        to prompt: String, images: [ImageInput] = [], videos: [VideoInput] = [], options: GenerationOptions = .init()
    ) -> AsyncThrowingStream<Token, any Error> {
        core.tokens(of: reference) { [core, reference] in
            let (connection, number) = try await core.place(of: reference)
            var attachments = Attachments()
            let fields: [String: JSONValue] = [
                "model": .integer(number), "prompt": .string(prompt), "images": attachments.add(images),
                "videos": attachments.add(videos), "options": options.json,
            ]
            let request = Request(
                name: "respond", id: nextRequestID(), fields: fields, attachments: attachments.data)
            return (connection, request)
        }
    }

    /// Describes live frames, window by window, until they are finished. Answers to other requests are made meanwhile.
    public func captions(
        of frames: LiveFrames, prompt: String, options: CaptionOptions = .init()
    ) -> AsyncThrowingStream<Caption, any Error> {
        let pump = FramePump(frames)
        let isFree = frames.attach { [weak pump] in pump?.run() }
        return core.stream(
            of: reference,
            begin: { [core, reference] in
                guard isFree else {
                    throw SmolVLMError.invalidRequest("these frames are captioned already; use one LiveFrames for each")
                }
                let (connection, number) = try await core.place(of: reference)
                let fields: [String: JSONValue] = [
                    "model": .integer(number), "prompt": .string(prompt), "window_s": .number(options.window),
                    "every_s": JSONValue(options.interval), "options": options.generation.json,
                ]
                return (connection, Request(name: "captions", id: nextRequestID(), fields: fields))
            },
            ended: { if isFree { frames.close() } },
            element: { event, connection in
                if event.event == "started", let source = event.id { pump.start(connection, source: source) }
                return event.caption
            })
    }

    /// Begins a conversation.
    public func makeSession(systemPrompt: String? = nil) async throws -> Session {
        try await session("session.create", ["system": JSONValue(systemPrompt)])
    }

    /// Goes on with a conversation that was saved.
    public func loadSession(from file: URL) async throws -> Session {
        try await session("session.load", ["path": .string(file.pathOrAddress)])
    }

    /// Builds kernels and pages weights in, so that the first answer is as quick as the others.
    public func warmUp() async throws {
        let (connection, number) = try await core.place(of: reference)
        _ = try await connection.call("warm_up", ["model": .integer(number)])
    }

    /// Ends all answers and captions of this model, those of its sessions too.
    public func cancelAll() {
        core.cancelAll(of: reference)
    }

    /// Releases its memory. Its sessions are closed, and its answers in flight end with an error.
    public func unload() async throws {
        try await core.unload(reference)
    }

    private func session(_ name: String, _ fields: [String: JSONValue]) async throws -> Session {
        let (connection, number) = try await core.place(of: reference)
        let fields = fields.merging(["model": .integer(number)]) { $1 }
        let created = try await connection.call(name, fields)
        return Session(core: core, reference: reference, connection: connection, number: created.id ?? 0)
    }
}
