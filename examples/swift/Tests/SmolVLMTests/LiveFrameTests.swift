import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// Captions of live frames: in order, with drops counted, and an end.
    @Suite struct LiveFrameTests {
        @Test(arguments: Place.allCases) func captionsComeInOrderAndEnd(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let seconds = isSlow ? 600.0 : 4.0
            let frames = LiveFrames()
            let process = try await process(of: model)
            let feeding = Task.detached {
                let began = ContinuousClock.now
                for number in 0..<Int(30 * seconds) {
                    try await Task.sleep(until: began + .milliseconds(number * 1000 / 30))
                    guard frames.append(try frame(number), at: Double(number) / 30) else { return false }
                }
                frames.finish()
                return true
            }
            // With 250 tokens, a caption of the demo model takes about as long as three windows.
            let options = CaptionOptions(
                window: 0.5,
                generation: .init(maxTokens: isSlow ? 250 : 60, temperature: 1000, seed: 3, framesPerSecond: 8))
            var captions: [Caption] = []
            var early = 0
            for try await caption in model.captions(of: frames, prompt: "What happens?", options: options) {
                captions.append(caption)
                if captions.count == 20 { early = memory(of: process) }
            }
            #expect(try await feeding.value)
            #expect(!frames.append(try frame(0), at: 1000))
            #expect(captions.count > 1)
            for (one, next) in zip(captions, captions.dropFirst()) {
                #expect(one.endS < next.endS && one.totalDropped <= next.totalDropped)
                #expect(next.totalDropped == one.totalDropped + next.droppedFrames)
            }
            #expect(captions.allSatisfy { $0.lagS < 10 && $0.frames > 0 })
            if isSlow {
                #expect((captions.last?.totalDropped ?? 0) > 0)
                #expect(Double(memory(of: process)) < 1.05 * Double(early))
                let lag = captions.map(\.lagS).max() ?? 0
                print("\(place): \(captions.count) captions, \(captions.last?.totalDropped ?? 0) dropped, lag \(lag) s")
            }
        }

        @Test(arguments: Place.allCases) func answersAreMadeMeanwhile(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let frames = LiveFrames()
            let watching = Task {
                for try await _ in model.captions(of: frames, prompt: "What happens?") {}
            }
            frames.append(try frame(1), at: 0)
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
            watching.cancel()
            _ = await watching.result
            #expect(try await eventually { frames.append(try frame(2), at: 1) == false })
        }

        @Test(arguments: Place.allCases) func oneSourceFeedsOneStream(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let frames = LiveFrames()
            let first = model.captions(of: frames, prompt: "What happens?")
            await #expect(throws: SmolVLMError.self) {
                for try await _ in model.captions(of: frames, prompt: "What happens?") {}
            }
            frames.finish()
            for try await _ in first {}
        }

        @Test func theOldestFramesAreDroppedAndCounted() throws {
            let frames = LiveFrames(capacity: 2)
            for number in 0..<5 { frames.append(try frame(number), at: Double(number)) }
            #expect(frames.droppedFrames == 3)
            #expect(frames.take()?.seconds == 3)
            frames.finish()
            #expect(!frames.append(try frame(9), at: 9) && !frames.hasEnded)
            #expect(frames.take()?.seconds == 4 && frames.hasEnded)
        }
    }
}

#if canImport(Observation)
    extension AllTests.LiveFrameTests {
        @Test(arguments: Place.allCases) @MainActor func aViewSeesTheLatestCaptionsUntilItStops(_ place: Place)
            async throws
        {
            let model = try await sharedModel(place)
            let feed = CaptionFeed(capacity: 2)
            let frames = feed.start(
                model, prompt: "What happens?", options: .init(window: 1, generation: .init(maxTokens: 2)))
            for number in 0..<100 {
                frames.append(try frame(number), at: Double(number) / 20)
                try await Task.sleep(for: .milliseconds(5))
            }
            let isFull = await eventually { feed.captions.count == 2 }
            #expect(isFull)
            #expect(feed.isRunning && feed.problem == nil)
            feed.stop()
            #expect(!feed.isRunning)
            #expect(try frames.append(frame(0), at: 100) == false)
            _ = feed.start(model, prompt: "What happens?", options: .init(window: -1))
            let hasFailed = await eventually { feed.problem?.contains("window") == true }
            #expect(hasFailed)
            #expect(!feed.isRunning)
        }
    }
#endif
