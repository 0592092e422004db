#if canImport(Observation)
    import Observation

    /// What a view shows of live frames: the latest captions, and whether there are more to come. On the main actor.
    @MainActor @Observable public final class CaptionFeed {
        /// The latest captions, newest last.
        public private(set) var captions: [Caption] = []
        /// Why they ended, if not because they were stopped.
        public private(set) var problem: String?
        /// Whether there may be more.
        public private(set) var isRunning = false
        private let capacity: Int
        private var task: Task<Void, Never>?
        private var frames: LiveFrames?

        /// - Parameter capacity: most captions that are kept.
        public init(capacity: Int = 20) {
            self.capacity = capacity
        }

        /// Begins to caption; what went on before is stopped. Returns where frames go.
        public func start(_ model: Model, prompt: String, options: CaptionOptions = .init()) -> LiveFrames {
            stop()
            let frames = LiveFrames()
            self.frames = frames
            problem = nil
            isRunning = true
            task = Task { [weak self, capacity] in
                do {
                    for try await caption in model.captions(of: frames, prompt: prompt, options: options) {
                        guard let self, !Task.isCancelled else { return }
                        self.captions = Array((self.captions + [caption]).suffix(capacity))
                    }
                } catch {
                    if !Task.isCancelled { self?.problem = error.localizedDescription }
                }
                if !Task.isCancelled { self?.isRunning = false }
            }
            return frames
        }

        /// Stops at once; the caption that is being made is left out.
        public func stop() {
            task?.cancel()
            frames?.finish()
            isRunning = false
        }
    }
#endif
