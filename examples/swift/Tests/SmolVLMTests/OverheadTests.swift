import CPythonRuntime
import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// What a call costs beside the work that it asks for. Prints the figures of this machine.
    @Suite struct OverheadTests {
        @Test(arguments: Place.allCases) func aCallAndAFrame(_ place: Place) async throws {
            let model = try await sharedModel(place)
            let connection = try await model.core.connection()
            let transport = try #require(connection.transport)
            let rounds = isSlow ? 5000 : 200
            _ = try await connection.call("ping", [:])
            var calls: [Duration] = []
            for _ in 0..<rounds {
                let began = ContinuousClock.now
                _ = try await connection.call("ping", [:])
                calls.append(ContinuousClock.now - began)
            }
            let pixels = try frame(1, width: 1280, height: 720)
            let frames: [Duration] = await withCheckedContinuation { continuation in
                transport.enqueue {
                    let times = (0..<20).map { number in
                        ContinuousClock().measure { _ = transport.push(pixels, seconds: Double(number), source: -1) }
                    }
                    continuation.resume(returning: times)
                }
            }
            _ = try await connection.call("ping", [:])
            var native: [Duration] = []
            if place == .inProcess {
                native = (0..<rounds).map { _ in ContinuousClock().measure { cpr_python_cancel(-1) } }
            }
            print("\(place): call \(told(calls)), frame of 1280 x 720 \(told(frames)), Python alone \(told(native))")
            #expect(share(0.1, of: calls) < .milliseconds(1) && share(0.1, of: frames) < .milliseconds(100))
        }

        /// How long this share of calls takes at most. The quickest tenth shows the cost where other programs are busy.
        private func share(_ part: Double, of times: [Duration]) -> Duration {
            times.isEmpty ? .zero : times.sorted()[Int(Double(times.count) * part)]
        }

        private func told(_ times: [Duration]) -> String {
            func microseconds(_ part: Double) -> Int {
                Int(share(part, of: times) / .nanoseconds(100)) / 10
            }
            return "\(microseconds(0.5)) us (quickest tenth \(microseconds(0.1)))"
        }
    }
}
