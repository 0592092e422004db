import Foundation

/// Frames on their way from a camera to the captions. The newest win: if they are not taken quickly enough, the oldest
/// are dropped, and counted.
public final class LiveFrames: Sendable {
    private struct State {
        var waiting: [(pixels: Pixels, seconds: Double)] = []
        var dropped = 0
        var isFinished = false
        var isWanted = true
        var onChange: (@Sendable () -> Void)?
    }

    private let capacity: Int
    private let state = Locked(State())

    /// - Parameter capacity: most frames that wait.
    public init(capacity: Int = 2) {
        self.capacity = max(1, capacity)
    }

    /// Hands over the next frame. From any thread; never waits.
    ///
    /// - Parameter seconds: when it is shown, on any clock that ascends, such as the presentation time of its buffer.
    /// - Returns: whether frames are still wanted: false after `finish`, and once the captions have ended.
    @discardableResult
    public func append(_ pixels: Pixels, at seconds: Double) -> Bool {
        let (isWanted, onChange) = state.with { state in
            guard state.isWanted, !state.isFinished else { return (false, nil as (@Sendable () -> Void)?) }
            if state.waiting.count >= capacity {
                state.waiting.removeFirst()
                state.dropped += 1
            }
            state.waiting.append((pixels, seconds))
            return (true, state.onChange)
        }
        onChange?()
        return isWanted
    }

    /// There will be no more frames: the captions end after those that are left.
    public func finish() {
        state.with { state in
            state.isFinished = true
            return state.onChange
        }?()
    }

    /// Frames that were dropped before Python saw them. Those that it drops are counted in each `Caption`.
    public var droppedFrames: Int { state.with { $0.dropped } }

    // What the pump does

    /// Begins to tell of changes. False if it tells somebody already: a source feeds one stream of captions.
    func attach(_ onChange: @escaping @Sendable () -> Void) -> Bool {
        state.with { state in
            guard state.onChange == nil else { return false }
            state.onChange = onChange
            return true
        }
    }

    func take() -> (pixels: Pixels, seconds: Double)? {
        state.with { $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() }
    }

    var hasEnded: Bool { state.with { $0.isFinished && $0.waiting.isEmpty } }

    /// The captions have ended.
    func close() {
        state.with { state in
            state.isWanted = false
            state.waiting = []
            state.onChange = {}
        }
    }
}
