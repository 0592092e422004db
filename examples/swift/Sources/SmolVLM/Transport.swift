import Foundation

/// What is asked of Python.
struct Request: Sendable {
    /// Its name, such as "respond".
    var name: String
    var id: Int
    var fields: [String: JSONValue]
    var attachments: [Data] = []

    private static let maxLine = 1 << 20
    private static let maxAttachments = 256
    private static let maxAttachment = 64 << 20

    /// One line of JSON, without its end.
    ///
    /// - Throws: `SmolVLMError.invalidRequest` for what is larger than the helper reads.
    func line() throws -> Data {
        var object = fields
        object["request"] = .string(name)
        object["id"] = .integer(id)
        if !attachments.isEmpty { object["attachments"] = .array(attachments.map { .integer($0.count) }) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        // Only numbers that are not finite cannot be encoded, and Python refuses null by name.
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        let line = (try? encoder.encode(JSONValue.object(object))) ?? Data("{}".utf8)
        if line.count > Self.maxLine {
            throw SmolVLMError.invalidRequest("the request has \(line.count) bytes of text, expected at most 1 MiB")
        }
        if attachments.count > Self.maxAttachments {
            throw SmolVLMError.invalidRequest(
                "the request has \(attachments.count) images and frames, expected at most \(Self.maxAttachments); "
                    + "pass files, or fewer of them")
        }
        if let size = attachments.map(\.count).max(), size > Self.maxAttachment {
            throw SmolVLMError.invalidRequest("an image has \(size) bytes, expected at most 64 MiB")
        }
        return line
    }
}

/// What comes back.
enum Incoming: Sendable {
    /// An event, as JSON.
    case event(Data)
    /// A line that was printed.
    case output(String)
    /// Nothing more will come.
    case ended(status: Int32, lastOutput: String)
}

/// The way to an engine of Python. No method waits, but for `push`.
protocol Transport: AnyObject, Sendable {
    /// Runs what may wait for Python, in order, and never on the main actor or the threads of tasks.
    func enqueue(_ body: @escaping @Sendable () -> Void)
    func send(_ line: Data, _ attachments: [Data], id: Int)
    func cancel(_ id: Int)
    /// Hands over a frame; within `enqueue` only. Returns whether more are wanted.
    func push(_ pixels: Pixels, seconds: Double, source: Int) -> Bool
    /// Ends it, if it is this runtime's own.
    func stop()
    /// Ends it whatever it does.
    func kill()
}

/// Numbers of requests, which in one process all differ.
func nextRequestID() -> Int {
    counter.with { number in
        number += 1
        return number
    }
}

private let counter = Locked(0)
