import Foundation

/// What is asked of Python.
struct Request: Sendable {
    /// Its name, such as "respond".
    var name: String
    var id: Int
    var fields: [String: JSONValue]
    var attachments: [Data] = []

    /// One line of JSON.
    func line(describesAttachments: Bool) -> Data {
        var object = fields
        object["request"] = .string(name)
        object["id"] = .integer(id)
        if describesAttachments, !attachments.isEmpty {
            object["attachments"] = .array(attachments.map { .integer($0.count) })
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        // Only numbers that are not finite cannot be encoded, and Python refuses null by name.
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return (try? encoder.encode(JSONValue.object(object))) ?? Data("{}".utf8)
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
    func send(_ request: Request)
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
