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
    // token
    var text: String?
    var token_id: Int?
    var finish_reason: FinishReason?
    var statistics: WireStatistics?
    var logprob: Double?
    var top_logprobs: [[Double]]?
    // caption
    var caption: WireCaption?
    // end
    var result: JSONValue?
    // error, log
    var kind: String?
    var type: String?
    var message: String?
    var level: String?

    /// Whether it is the last one of its request.
    var isLast: Bool { ["ready", "loaded", "end", "error"].contains(event) }

    var token: Token {
        Token(
            text: text ?? "", id: token_id, finishReason: finish_reason, statistics: statistics?.value,
            logprob: logprob,
            topLogprobs: top_logprobs?.map { TokenLogprob(id: Int($0[0]), logprob: $0[1]) })
    }
}

struct WireStatistics: Sendable, Decodable {
    var prompt_tokens: Int
    var image_tokens: Int
    var cached_tokens: Int
    var completion_tokens: Int
    var seconds: Double

    var value: Statistics {
        Statistics(
            promptTokens: prompt_tokens, imageTokens: image_tokens, cachedTokens: cached_tokens,
            completionTokens: completion_tokens, seconds: seconds)
    }
}

struct WireCaption: Sendable, Decodable {
    var start_s: Double
    var end_s: Double
    var text: String
    var frames: Int
    var dropped_frames: Int
    var total_dropped: Int
    var lag_s: Double
    var generation_s: Double
    var finish_reason: FinishReason
    var wall_time: String

    var value: Caption {
        Caption(
            startS: start_s, endS: end_s, text: text, frames: frames, droppedFrames: dropped_frames,
            totalDropped: total_dropped, lagS: lag_s, generationS: generation_s, finishReason: finish_reason,
            wallTime: wall_time)
    }
}
