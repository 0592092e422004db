import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// Answers are those of Python's `stream_generate`.
    @Suite struct AnswerTests {
        @Test(arguments: Place.allCases) func anImageInAnyForm(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let expected = try Reference.answer("picture")
            let size = try Reference.answer("rgb").ids
            let pixels = try camera(try Reference.made.get().pixels, width: size[0], height: size[1], padding: 12)
            for image: ImageInput in [.file(picture), .encoded(try Data(contentsOf: picture)), .pixels(pixels)] {
                #expect(try await read(model.respond(to: color, images: [image])) == expected)
            }
        }

        @Test(arguments: Place.allCases) func twoImagesAVideoAndASchema(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let question = "What is different between the two pictures?"
            let two = try await read(model.respond(to: question, images: [.file(picture), .file(second)]))
            #expect(try two == Reference.answer("two"))
            let video = try await read(model.respond(to: way, videos: [.file(clip)]))
            #expect(try video == Reference.answer("video"))
            let schema: JSONValue = [
                "type": "object", "properties": ["a": ["enum": ["red", "blue"]]], "required": ["a"],
            ]
            let json = model.respond(to: color, images: [.file(picture)], options: .init(jsonSchema: schema))
            #expect(try await read(json) == Reference.answer("schema"))
        }

        @Test(arguments: Place.allCases) func aModelWithAnAdapterBesideOneWithout(_ place: Place) async throws {
            let (runtime, model) = try await Shared.shared.pair(place)
            let adapted = try await runtime.loadModel(.demo, adapters: [Reference.made.get().adapter])
            let options = GenerationOptions(maxTokens: 8)
            let answer = try await read(adapted.respond(to: color, images: [.file(picture)], options: options))
            #expect(try answer == Reference.answer("adapted"))
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
            #expect(try answer != Reference.answer("picture"))
            try await adapted.unload()
            await #expect(throws: SmolVLMError.self) {
                try await runtime.loadModel(.demo, adapters: [AdapterSource("/no/such/adapter")])
            }
        }

        @Test(arguments: Place.allCases) func theLastTokenHasStatistics(_ place: Place) async throws {
            let model = try await sharedModel(place)
            var tokens: [Token] = []
            for try await token in model.respond(to: color, images: [.file(picture)], options: .init(logprobs: 2)) {
                tokens.append(token)
            }
            let last = try #require(tokens.last)
            #expect(last.finishReason == .stop)
            #expect(last.statistics?.completionTokens == tokens.count)
            #expect(tokens.dropLast().allSatisfy { $0.finishReason == nil && $0.statistics == nil })
            #expect(tokens.allSatisfy { $0.topLogprobs?.count == 2 && ($0.logprob ?? 1) <= 0 })
        }

        @Test(arguments: Place.allCases) func aSessionReadsOnlyWhatIsNew(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("smolvlm-\(UUID()).session")
            defer { try? FileManager.default.removeItem(at: file) }
            let session = try await model.makeSession()
            #expect(try await read(session.respond(to: way, videos: [.file(clip)])) == Reference.answer("first"))
            try await session.save(to: file)
            let (runtime, other) = try await another(place, model)
            let again = try await other.loadSession(from: file)
            for talk in [session, again] {
                var answer: [Token] = []
                for try await token in await talk.respond(to: color) { answer.append(token) }
                let seen = try #require(answer.last?.statistics)
                #expect(try answer.compactMap(\.id) == Reference.answer("follow").ids)
                #expect(try answer.map(\.text).joined() == Reference.answer("follow").text)
                #expect(seen.promptTokens - seen.cachedTokens < 24)
                #expect(try await talk.turns.map(\.question) == [way, color])
            }
            #expect(try await again.regenerate().text() == Reference.answer("follow").text)
            #expect(try await again.editLast(to: color).text() == Reference.answer("follow").text)
            try await again.undo()
            #expect(try await again.turns.count == 1)
            await runtime?.shutDown()
        }

        /// A model of another runtime, as after the app was started again; in process there is but one Python.
        private func another(_ place: Place, _ model: Model) async throws -> (Runtime?, Model) {
            if place == .inProcess { return (nil, model) }
            let runtime = try await Runtime.start(environment)
            return (runtime, try await runtime.loadModel(.demo))
        }

        @Test(arguments: Place.allCases) func whatIsWrongIsOneErrorAndTheNextAnswerIsRight(_ place: Place) async throws
        {
            let model = try await sharedModel(place)
            let damaged = Data(try Data(contentsOf: picture).prefix(300))
            let bad: [AsyncThrowingStream<Token, any Error>] = [
                model.respond(to: color, images: [.encoded(damaged)]),
                model.respond(to: ""),
                model.respond(to: String(repeating: "word ", count: 3000)),
                model.respond(to: String(repeating: "x", count: 2 << 20)),
                model.respond(to: color, images: [ImageInput](repeating: .encoded(damaged), count: 257)),
                model.respond(to: color, images: [.encoded(Data(count: (64 << 20) + 1))]),
                model.respond(to: color, options: .init(temperature: -1)),
                model.respond(to: color, options: .init(temperature: .nan)),
                model.respond(to: color, options: .init(others: ["tempreature": 1])),
            ]
            for stream in bad {
                guard case .invalidRequest(let message) = await failure(stream) else {
                    Issue.record("no invalidRequest")
                    continue
                }
                #expect(!message.isEmpty && !message.contains("\n"))
            }
            let missing = await failure(model.respond(to: color, images: [.file(URL(fileURLWithPath: "/no/such.png"))]))
            guard case .fileNotFound = missing else {
                Issue.record("\(String(describing: missing))")
                return
            }
            let address = try #require(URL(string: "https://example.com/a.png"))
            let unfetched = await failure(model.respond(to: color, images: [.file(address)]))
            #expect(unfetched?.localizedDescription.contains("example.com") == true)
            #expect(throws: SmolVLMError.self) {
                try Pixels(Data(count: 8), width: 3, height: 1, bytesPerRow: 8, format: .rgb)
            }
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
        }

        @Test(arguments: Place.allCases) func manyTasksAtOnceAreAllAnsweredAndNoThreadIsLeft(_ place: Place)
            async throws
        {
            let model = try await sharedModel(place)
            let expected = try Reference.answer("picture")
            let process = try await process(of: model)
            let rounds = isSlow ? 10 : 1
            func ask() async throws {
                try await withThrowingTaskGroup(of: Bool.self) { group in
                    for _ in 0..<50 {
                        group.addTask {
                            for _ in 0..<rounds
                            where try await read(
                                model.respond(to: color, images: [.file(picture)])) != expected
                            {
                                return false
                            }
                            return true
                        }
                    }
                    for try await isRight in group { #expect(isRight) }
                }
            }
            try await ask()
            let before = threads(of: process)
            let held = memory(of: process)
            try await ask()
            #expect(threads(of: process) <= before + 2)
            if isSlow { #expect(Double(memory(of: process)) < 1.05 * Double(held) + 8e6) }
            if isSlow {
                print("\(place): \(before), \(threads(of: process)) threads; \(held), \(memory(of: process)) bytes")
            }
        }
    }
}
