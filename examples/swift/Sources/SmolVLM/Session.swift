import Foundation

/// A conversation: what was read once is not read again. One answer at a time.
///
/// It lives in Python: if the helper process ends, it is lost unless it was saved, and all its methods throw
/// `SmolVLMError.closed`.
public actor Session {
    private let core: Core
    private let reference: ModelReference
    private let connection: Connection
    private let number: Int

    init(core: Core, reference: ModelReference, connection: Connection, number: Int) {
        self.core = core
        self.reference = reference
        self.connection = connection
        self.number = number
    }

    deinit {
        if connection.isOpen {
            let fields: [String: JSONValue] = ["session": .integer(number)]
            connection.send(Request(name: "session.close", id: nextRequestID(), fields: fields)) { _ in }
        }
    }

    /// Asks the next question. The answer belongs to the conversation once it has ended, also where it was cancelled.
    public func respond(
        to prompt: String, images: [ImageInput] = [], videos: [VideoInput] = [], options: GenerationOptions = .init()
    ) -> AsyncThrowingStream<Token, any Error> {
        var attachments = Attachments()
        return tokens(
            "session.ask",
            [
                "prompt": .string(prompt), "images": attachments.add(images), "videos": attachments.add(videos),
                "options": options.json,
            ], attachments.data)
    }

    /// Asks the last question in other words. Its images and videos stay.
    public func editLast(
        to prompt: String, options: GenerationOptions = .init()
    ) -> AsyncThrowingStream<Token, any Error> {
        tokens("session.edit", ["prompt": .string(prompt), "options": options.json])
    }

    /// Answers the last question again; the answer differs only with a temperature above 0.
    public func regenerate(options: GenerationOptions = .init()) -> AsyncThrowingStream<Token, any Error> {
        tokens("session.regenerate", ["options": options.json])
    }

    /// Takes back the last question with its answer.
    public func undo() async throws {
        _ = try await call("session.undo")
    }

    /// The conversation so far.
    public var turns: [Turn] {
        get async throws {
            guard case .array(let turns) = try await call("session.turns").result else { return [] }
            return turns.compactMap { turn in
                guard case .object(let fields) = turn, case .string(let question) = fields["question"],
                    case .string(let answer) = fields["answer"], case .string(let reason) = fields["finish_reason"]
                else { return nil }
                return Turn(question: question, answer: answer, finishReason: reason)
            }
        }
    }

    /// Writes the conversation, and what the model has read of it, into a file.
    public func save(to file: URL) async throws {
        _ = try await call("session.save", ["path": .string(file.pathOrAddress)])
    }

    private func tokens(
        _ name: String, _ fields: [String: JSONValue], _ attachments: [Data] = []
    ) -> AsyncThrowingStream<Token, any Error> {
        let fields = fields.merging(["session": .integer(number)]) { $1 }
        let request = Request(name: name, id: nextRequestID(), fields: fields, attachments: attachments)
        return core.tokens(of: reference) { [self] in
            guard connection.isOpen else { throw SmolVLMError.closed }
            return (connection, request)
        }
    }

    private func call(_ name: String, _ fields: [String: JSONValue] = [:]) async throws -> Event {
        guard connection.isOpen else { throw SmolVLMError.closed }
        return try await connection.call(name, fields.merging(["session": .integer(number)]) { $1 })
    }
}
