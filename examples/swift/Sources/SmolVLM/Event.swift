import Foundation

/// The protocol that this package speaks; see docs/swift.md.
let protocolVersion = 1

/// What Python tells, one JSON object each.
struct Event: Sendable, Decodable {
    var event: String
    var id: Int?
    // ready
    var `protocol`: Int?
    var versions: [String: String]?
    var device: String?
    // progress
    var what: String?
    var fraction: Double?
    var doneBytes: Int?
    var totalBytes: Int?
    // token
    var text: String?
    var tokenID: Int?
    var finishReason: FinishReason?
    var statistics: Statistics?
    var logprob: Double?
    var topLogprobs: [[Double]]?
    // caption
    var caption: Caption?
    // end
    var result: JSONValue?
    // error, log
    var kind: String?
    var type: String?
    var message: String?
    var level: String?

    private enum CodingKeys: String, CodingKey {
        case event, id, `protocol`, versions, device, what, fraction, text, statistics, logprob, caption, result, kind
        case type, message, level
        case doneBytes = "done_bytes"
        case totalBytes = "total_bytes"
        case tokenID = "token_id"
        case finishReason = "finish_reason"
        case topLogprobs = "top_logprobs"
    }

    /// Whether it is the last one of its request.
    var isLast: Bool { ["ready", "loaded", "end", "error"].contains(event) }

    var token: Token {
        Token(
            text: text ?? "", id: tokenID, finishReason: finishReason, statistics: statistics, logprob: logprob,
            topLogprobs: topLogprobs?.map { TokenLogprob(id: Int($0[0]), logprob: $0[1]) })
    }
}
