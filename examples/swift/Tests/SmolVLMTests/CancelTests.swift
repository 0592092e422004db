import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// Cancelling takes effect at once, whatever way it comes.
    @Suite struct CancelTests {
        @Test(arguments: Place.allCases) func aCancelledTaskEndsAndTheNextAnswerIsRight(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let expected = try Reference.answer("picture")
            let (started, starting) = AsyncStream.makeStream(of: Void.self)
            let task = Task {
                for try await _ in model.respond(to: color, options: endless) { starting.yield() }
            }
            for await _ in started { break }
            let began = ContinuousClock.now
            task.cancel()
            _ = await task.result
            #expect(ContinuousClock.now - began < .milliseconds(500))
            let next = try await read(model.respond(to: color, images: [.file(picture)]))
            #expect(next == expected)
            #expect(ContinuousClock.now - began < .seconds(5))
        }

        @Test(arguments: Place.allCases) func aStreamThatIsDroppedUnreadLeavesTheEngineIdle(_ place: Place) async throws
        {
            let model = try await sharedModel(place)
            func drop() { _ = model.respond(to: color, options: endless) }
            for _ in 0..<5 { drop() }
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
            #expect(await eventually { await isIdle(model) })
        }

        private func isIdle(_ model: Model) async -> Bool {
            guard let connection = try? await model.core.connection() else { return false }
            return connection.isIdle
        }

        @Test(arguments: Place.allCases) func allAnswersOfAModelCanBeCancelled(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let streams = (0..<3).map { _ in model.respond(to: color, options: endless) }
            var reasons: [FinishReason?] = []
            for (number, stream) in streams.enumerated() {
                var last: Token?
                for try await token in stream {
                    if number == 0, last == nil { model.cancelAll() }
                    last = token
                }
                reasons.append(last?.finishReason)
            }
            #expect(reasons == [.cancelled, .cancelled, .cancelled])
        }

        /// The main actor of an app draws: it must never wait for Python. A machine that is busy with other programs may
        /// be late by itself, so one good round of three is enough.
        @Test(arguments: Place.allCases) @MainActor func theMainActorNeverWaits(_ place: Place) async throws {
            var rounds: [(mainActor: Duration, machine: Duration)] = []
            while rounds.count < 3, !rounds.contains(where: { $0.mainActor < .milliseconds(50) + $0.machine }) {
                rounds.append(try await lateness(place))
            }
            #expect(rounds.contains { $0.mainActor < .milliseconds(50) + $0.machine }, "\(rounds)")
        }

        /// By how much a ticker is late while a model is loaded, answers, is cancelled and unloaded.
        @MainActor private func lateness(_ place: Place) async throws -> (mainActor: Duration, machine: Duration) {
            let (runtime, model) = try await Shared.shared.pair(place)
            let ticker = Ticker()
            ticker.start()
            let other = try await runtime.loadModel(.demo)
            for image in [ImageInput.file(picture), .file(second)] {
                _ = try await other.respond(to: color, images: [image]).text()
            }
            let task = Task { try await model.respond(to: color, options: endless).text() }
            try await Task.sleep(for: .milliseconds(200))
            task.cancel()
            _ = await task.result
            try await other.unload()
            return await ticker.stop()
        }
    }
}

/// Wakes on the main actor every 5 ms, and notes by how much it was late; a thread does the same, and is late only where
/// the machine has no time for it.
@MainActor final class Ticker {
    private var latest = Duration.zero
    private let machine = Locked(Duration.zero)
    private let isEnded = Locked(false)
    private var task: Task<Void, Never>?

    func start() {
        SmolVLM.start("ticker") { [machine, isEnded] in
            while !isEnded.with({ $0 }) {
                let began = ContinuousClock.now
                usleep(5000)
                machine.with { $0 = max($0, ContinuousClock.now - began - .milliseconds(5)) }
            }
        }
        task = Task {
            while !Task.isCancelled {
                let began = ContinuousClock.now
                try? await Task.sleep(for: .milliseconds(5))
                latest = max(latest, ContinuousClock.now - began - .milliseconds(5))
            }
        }
    }

    func stop() async -> (mainActor: Duration, machine: Duration) {
        isEnded.with { $0 = true }
        task?.cancel()
        await task?.value
        return (latest, machine.with { $0 })
    }
}
