import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// Whatever goes wrong in Python is the error of one answer, and the next one is right.
    @Suite struct FaultTests {
        /// An image in HEIC, at which Python imports a library; see faults/pillow_heif.py.
        private func image(_ fault: String) -> ImageInput {
            .encoded(Data([0, 0, 0, 24]) + Data("ftypheic".utf8) + Data(count: 4) + Data(fault.utf8))
        }

        @Test(arguments: Place.allCases, ["raise", "exit", "print", "recurse", "memory"])
        func aFaultOfPythonEndsOneAnswer(_ place: Place, _ fault: String) async throws {
            let model = try await sharedModel(place)
            let python = try await process(of: model)
            let error = try #require(await failure(model.respond(to: color, images: [image(fault)])))
            switch (fault, error) {
            case ("raise", .python("RuntimeError", "a fault of a test")): break
            case ("exit", .python("RuntimeError", "a thread ended with SystemExit 3")): break
            case ("recurse", .python("RecursionError", _)), ("memory", .outOfMemory): break
            case ("print", .invalidRequest): break
            default: Issue.record("\(fault) became \(error)")
            }
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
            #expect(try await process(of: model) == python)  // nothing was restarted
        }

        @Test(arguments: Place.allCases) func aFaultDoesNotEndASession(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let session = try await model.makeSession()
            #expect(await failure(session.respond(to: color, images: [image("exit")])) != nil)
            #expect(try await read(session.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
        }
    }
}
