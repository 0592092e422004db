/// How an answer is made, and how its images and videos are read. What is nil is as Python has it.
///
/// The names and meaning are those of `GenerationOptions` and `MediaOptions` in Python.
public struct GenerationOptions: Sendable, Hashable {
    /// Most tokens to generate.
    public var maxTokens: Int?
    /// 0 takes the likeliest token.
    public var temperature: Double?
    /// Choose among the likeliest tokens that have this probability together.
    public var topP: Double?
    /// Choose among so many of the likeliest tokens.
    public var topK: Int?
    /// Choose among tokens of at least this share of the likeliest one's probability.
    public var minP: Double?
    /// Above 1 makes tokens that are there already less likely.
    public var repetitionPenalty: Double?
    /// Fixes the random choices.
    public var seed: Int?
    /// Texts that end the answer; they are not part of it.
    public var stop: [String]
    /// The answer is JSON that is valid under this schema.
    public var jsonSchema: JSONValue?
    /// The answer matches this regular expression.
    public var regex: String?
    /// Report the log probability of each token, and of this many of the likeliest.
    public var logprobs: Int?
    /// False sends one tile per image.
    public var splitsImages: Bool?
    /// Pixels to which an image's longest side is resized.
    public var longestEdge: Int?
    /// Frames per second of video.
    public var framesPerSecond: Double?
    /// Most frames per video.
    public var maxFrames: Int?
    /// The part of each video to look at, in seconds.
    public var videoRange: ClosedRange<Double>?
    /// Any other option, by its name in Python, such as `prompt_lookup_tokens`.
    public var others: [String: JSONValue]

    /// What is left out is as Python has it.
    public init(
        maxTokens: Int? = nil, temperature: Double? = nil, topP: Double? = nil, topK: Int? = nil,
        minP: Double? = nil, repetitionPenalty: Double? = nil, seed: Int? = nil, stop: [String] = [],
        jsonSchema: JSONValue? = nil, regex: String? = nil, logprobs: Int? = nil, splitsImages: Bool? = nil,
        longestEdge: Int? = nil, framesPerSecond: Double? = nil, maxFrames: Int? = nil,
        videoRange: ClosedRange<Double>? = nil, others: [String: JSONValue] = [:]
    ) {
        self.maxTokens = maxTokens
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.seed = seed
        self.stop = stop
        self.jsonSchema = jsonSchema
        self.regex = regex
        self.logprobs = logprobs
        self.splitsImages = splitsImages
        self.longestEdge = longestEdge
        self.framesPerSecond = framesPerSecond
        self.maxFrames = maxFrames
        self.videoRange = videoRange
        self.others = others
    }

    var json: JSONValue {
        let given: [String: JSONValue?] = [
            "max_tokens": maxTokens.map { .integer($0) },
            "temperature": temperature.map { .number($0) },
            "top_p": topP.map { .number($0) },
            "top_k": topK.map { .integer($0) },
            "min_p": minP.map { .number($0) },
            "repetition_penalty": repetitionPenalty.map { .number($0) },
            "seed": seed.map { .integer($0) },
            "stop": stop.isEmpty ? nil : .array(stop.map { .string($0) }),
            "json_schema": jsonSchema,
            "regex": regex.map { .string($0) },
            "logprobs": logprobs.map { .integer($0) },
            "do_image_splitting": splitsImages.map { .bool($0) },
            "longest_edge": longestEdge.map { .integer($0) },
            "fps": framesPerSecond.map { .number($0) },
            "max_frames": maxFrames.map { .integer($0) },
            "start_s": videoRange.map { .number($0.lowerBound) },
            "end_s": videoRange.map { .number($0.upperBound) },
        ]
        return .object(given.compactMapValues { $0 }.merging(others) { $1 })
    }
}

/// How frames are captioned while they come.
public struct CaptionOptions: Sendable, Hashable {
    /// Seconds of a window, which the model sees as a video of that length.
    public var window: Double
    /// Seconds from one window's end to the next one's; nil joins them.
    public var interval: Double?
    /// How each caption is made. Of what concerns videos, `framesPerSecond` and `maxFrames` are used.
    public var generation: GenerationOptions

    /// Windows of ten seconds, one after the other, unless told otherwise.
    public init(window: Double = 10, interval: Double? = nil, generation: GenerationOptions = .init()) {
        self.window = window
        self.interval = interval
        self.generation = generation
    }
}
