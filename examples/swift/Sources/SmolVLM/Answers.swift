/// One step of an answer. The last one has `finishReason` and `statistics`.
public struct Token: Sendable, Hashable {
    /// What it adds to the answer; empty while a character or a stop text is incomplete.
    public var text: String
    /// Its number in the vocabulary; nil if the answer ended without one.
    public var id: Int?
    /// Why the answer ended; nil before its last token.
    public var finishReason: FinishReason?
    /// What the answer has cost; nil before its last token.
    public var statistics: Statistics?
    /// Natural logarithm of its probability, if `GenerationOptions.logprobs` asks for it.
    public var logprob: Double?
    /// The likeliest tokens, likeliest first, if asked for.
    public var topLogprobs: [TokenLogprob]?
}

/// A token that was likely, and the natural logarithm of its probability.
public struct TokenLogprob: Sendable, Hashable {
    public var id: Int
    public var logprob: Double
}

/// Why an answer ended.
public enum FinishReason: String, Sendable, Hashable, Codable {
    /// An end token or a stop text came, or structured output is complete.
    case stop
    /// As many tokens were generated as may be.
    case length
    /// It was cancelled: by `Model.cancelAll`, for one.
    case cancelled
}

/// What an answer has cost.
public struct Statistics: Sendable, Hashable, Codable {
    /// Tokens of the prompt, those of images and frames included.
    public var promptTokens: Int
    /// Those of them that stand for images and frames.
    public var imageTokens: Int
    /// Those of them that were known from an earlier prompt, and not read again.
    public var cachedTokens: Int
    /// Tokens of the answer.
    public var completionTokens: Int
    /// From the request to the last token.
    public var seconds: Double

    private enum CodingKeys: String, CodingKey {
        case promptTokens = "prompt_tokens"
        case imageTokens = "image_tokens"
        case cachedTokens = "cached_tokens"
        case completionTokens = "completion_tokens"
        case seconds
    }
}

/// The answer about one window of live frames. Times are in seconds.
public struct Caption: Sendable, Hashable, Codable {
    /// Beginning of the window, counted from the first frame.
    public var startS: Double
    /// End of the window, counted from the first frame.
    public var endS: Double
    public var text: String
    /// Frames that the model saw.
    public var frames: Int
    /// Sampled frames since the last caption that no caption shows, because the model was slower than the camera.
    public var droppedFrames: Int
    /// The same since the beginning.
    public var totalDropped: Int
    /// Age of the window's newest frame when the model began.
    public var lagS: Double
    /// From then on to the last token.
    public var generationS: Double
    public var finishReason: FinishReason
    /// When the newest frame came, ISO 8601.
    public var wallTime: String

    private enum CodingKeys: String, CodingKey {
        case startS = "start_s"
        case endS = "end_s"
        case text, frames
        case droppedFrames = "dropped_frames"
        case totalDropped = "total_dropped"
        case lagS = "lag_s"
        case generationS = "generation_s"
        case finishReason = "finish_reason"
        case wallTime = "wall_time"
    }
}

/// A question with its answer.
public struct Turn: Sendable, Hashable, Codable {
    public var question: String
    public var answer: String
    /// "stop", "length", "cancelled", or "closed" where the answer was left.
    public var finishReason: String
}

extension AsyncSequence where Element == Token {
    /// The whole answer.
    public func text() async throws -> String {
        var answer = ""
        for try await token in self { answer += token.text }
        return answer
    }
}
