import Foundation
import Testing

@testable import SmolVLM

extension AllTests {
    /// The runtime starts, says why if it does not, and outlives its helpers.
    @Suite struct RuntimeTests {
        private let quick = RuntimeOptions(restartDelays: [.milliseconds(50), .milliseconds(100)])

        @Test(arguments: Place.allCases) func itSaysWhatItTalksTo(_ place: Place) async throws {
            let runtime = try await Shared.shared.pair(place).0
            #expect(runtime.information.protocolVersion == 1)
            #expect(!runtime.information.mlx.isEmpty && ["cpu", "gpu"].contains(runtime.information.device))
        }

        @Test func aHelperThatIsKilledIsStartedAgainAndThenGivenUp() async throws {
            var helpers: [pid_t] = []
            let runtime = try await Runtime.start(environment, options: quick)
            let model = try await runtime.loadModel(.demo)
            let session = try await model.makeSession()
            let states = Locked<[RuntimeState]>([])
            let watching = Task { for await state in runtime.states { states.with { $0.append(state) } } }
            for round in 1...3 {
                let helper = try await process(of: model)
                helpers.append(helper)
                let stream = model.respond(to: color, options: endless)
                var count = 0
                do {
                    for try await _ in stream {
                        count += 1
                        if count == 1 { kill(helper, SIGKILL) }
                    }
                    Issue.record("the stream ended well")
                } catch {
                    #expect(error as? SmolVLMError == .helperEnded(status: -SIGKILL, lastOutput: ""))
                }
                if round < 3 {
                    let answer = try await read(model.respond(to: color, images: [.file(picture)]))
                    #expect(try answer == Reference.answer("picture"))
                    let lost = await failure(session.respond(to: color))
                    #expect(lost == .closed)
                }
            }
            await watching.value
            let ended = RuntimeState.ended(.helperEnded(status: -SIGKILL, lastOutput: ""))
            let expected: [RuntimeState] = [
                .running, .restarting(attempt: 1), .running, .restarting(attempt: 2), .running, ended,
            ]
            #expect(states.with { $0 } == expected)
            #expect(await failure(model.respond(to: color)) == .helperEnded(status: -SIGKILL, lastOutput: ""))
            #expect(helpers.count == 3 && !helpers.contains(where: isAlive))
        }

        @Test(.enabled(if: isSlow)) func aHelperKilledAtAnyMomentLeavesNothingBehind() async throws {
            var helpers: [pid_t] = []
            var options = quick
            options.restartDelays = [Duration](repeating: .milliseconds(10), count: 60)
            let runtime = try await Runtime.start(environment, options: options)
            let model = try await runtime.loadModel(.demo)
            var generator = SystemRandomNumberGenerator()
            for _ in 0..<50 {
                let helper = try await process(of: model)
                helpers.append(helper)
                let stream = model.respond(to: color, images: [.file(picture)], options: endless)
                let reading = Task { await failure(stream) }
                try await Task.sleep(for: .milliseconds(Int.random(in: 0..<400, using: &generator)))
                kill(helper, SIGKILL)
                let error = await reading.value
                guard case .helperEnded = error else {
                    Issue.record("\(String(describing: error))")
                    continue
                }
                let answer = try await read(model.respond(to: color, images: [.file(picture)]))
                #expect(try answer == Reference.answer("picture"))
            }
            await runtime.shutDown()
            #expect(await eventually { !helpers.contains(where: isAlive) })
        }

        @Test func whatCannotStartSaysWhyAtOnce() async throws {
            let began = ContinuousClock.now
            let none = PythonEnvironment(executable: URL(fileURLWithPath: "/no/such/python"))
            #expect(await start(none) == .pythonNotFound(tried: ["/no/such/python"]))
            let missing = await start(try fake("raise ImportError('no mlx')"))
            guard case .packageMissing(let reason) = missing else {
                Issue.record("\(String(describing: missing))")
                return
            }
            #expect(reason.contains("no mlx"))
            let ready = try fake(
                "",
                main: """
                    import json, sys
                    number = json.loads(sys.stdin.readline())["id"]
                    print(json.dumps({"event": "ready", "id": number, "protocol": 2}), flush=True)
                    sys.stdin.readline()
                    """)
            #expect(await start(ready) == .incompatible(found: "protocol 2", needed: "protocol 1"))
            let crashing = await start(try fake("", main: "import sys; print('cannot', file=sys.stderr); sys.exit(7)"))
            guard case .helperEnded(status: 7, _) = crashing else {
                Issue.record("\(String(describing: crashing))")
                return
            }
            let silent = try fake("", main: "import time; time.sleep(60)")
            let late = await start(silent, .init(startTimeout: .milliseconds(300)))
            guard case .python(kind: "TimeoutError", _) = late else {
                Issue.record("\(String(describing: late))")
                return
            }
            #expect(ContinuousClock.now - began < .seconds(6))
        }

        private func start(_ environment: PythonEnvironment, _ options: RuntimeOptions = .init()) async -> SmolVLMError?
        {
            do {
                _ = try await Runtime.start(environment, options: options)
                return nil
            } catch {
                return error as? SmolVLMError
            }
        }

        /// An environment whose package is another one.
        private func fake(_ package: String, main: String = "") throws -> PythonEnvironment {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("smolvlm-\(UUID())")
            let bridge = folder.appendingPathComponent("mlx_smolvlm/bridge")
            try FileManager.default.createDirectory(at: bridge, withIntermediateDirectories: true)
            try Data(package.utf8).write(to: folder.appendingPathComponent("mlx_smolvlm/__init__.py"))
            try Data().write(to: bridge.appendingPathComponent("__init__.py"))
            try Data(main.utf8).write(to: bridge.appendingPathComponent("__main__.py"))
            return PythonEnvironment(executable: environment.executable, extraSearchPaths: [folder])
        }

        @Test func aSecondPythonInThisProcessIsRefused() async throws {
            _ = try await Shared.shared.pair(.inProcess)
            let other = PythonEnvironment(executable: environment.executable)
            for error in [
                await start(other, .init(isolation: .inProcess())),
                await start(environment, .init(isolation: .inProcess(), isOffline: true)),
            ] {
                guard case .incompatible = error else {
                    Issue.record("\(String(describing: error))")
                    return
                }
            }
        }

        @Test func aPythonIsDiscoveredWhereItIsNamedOrBundled() throws {
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("smolvlm-\(UUID())")
            defer { try? FileManager.default.removeItem(at: folder) }
            func find(_ name: String? = nil) throws -> PythonEnvironment {
                try .discovered(named: name, resources: folder, current: folder)
            }
            func make(_ path: String) throws -> URL {
                let file = folder.appendingPathComponent(path)
                let parent = file.deletingLastPathComponent()
                try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
                try Data().write(to: file)
                try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
                return file
            }
            #expect(throws: SmolVLMError.self) { try find() }
            let own = try make(".venv/bin/python")
            #expect(try find() == PythonEnvironment(executable: own))
            let bundled = try make("python/bin/python3")
            let packages = try make("packages/a.py").deletingLastPathComponent()
            #expect(try find() == PythonEnvironment(executable: bundled, extraSearchPaths: [packages]))
            #expect(try find(own.path) == PythonEnvironment(executable: own))
            #expect(throws: SmolVLMError.pythonNotFound(tried: ["/no/such"])) { try find("/no/such") }
        }

        @Test(arguments: Place.allCases) func afterShuttingDownEverythingIsClosed(_ place: Place) async throws {
            let runtime = try await Runtime.start(environment, options: .init(isolation: place.isolation))
            let model = try await runtime.loadModel(.demo)
            let helper = try await process(of: model)
            let stream = model.respond(to: color, options: endless)
            for try await _ in stream { break }
            await runtime.shutDown()
            #expect(await failure(model.respond(to: color)) == .closed)
            await #expect(throws: SmolVLMError.closed) { try await model.warmUp() }
            #expect(await eventually { helper == getpid() || !isAlive(helper) })
            var states: [RuntimeState] = []
            for await state in runtime.states { states.append(state) }
            #expect(states == [.ended(nil)])
        }

        @Test func aRuntimeThatIsDroppedTakesItsHelperAlong() async throws {
            func helperOfADroppedRuntime() async throws -> pid_t {
                let runtime = try await Runtime.start(environment)
                return try await process(of: runtime.loadModel(.demo))
            }
            let helper = try await helperOfADroppedRuntime()
            #expect(await eventually { !isAlive(helper) })
        }

        @Test func aDownloadTellsItsBytes() async throws {
            let folder = demo.appendingPathComponent("model")
            let hub = try FakeHub(folder)
            defer { hub.stop() }
            let cache = FileManager.default.temporaryDirectory.appendingPathComponent("smolvlm-\(UUID())")
            defer { try? FileManager.default.removeItem(at: cache) }
            var environment = environment
            environment.variables = [
                "HF_ENDPOINT": hub.address, "HF_HOME": cache.path, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
            ]
            let runtime = try await Runtime.start(environment)
            let seen = Locked<(shares: [Double], downloads: [DownloadProgress])>(([], []))
            let model = try await runtime.loadModel(
                .hub("owner/name"), progress: { share in seen.with { $0.shares.append(share) } },
                download: { download in seen.with { $0.downloads.append(download) } })
            let (shares, downloads) = seen.with { $0 }
            #expect(shares == downloads.map { Double($0.doneBytes) / Double($0.totalBytes) })
            let files = try FileManager.default.contentsOfDirectory(
                at: folder, includingPropertiesForKeys: [.fileSizeKey])
            let size = try files.reduce(0) { $0 + (try $1.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0) }
            #expect(downloads.last == DownloadProgress(doneBytes: size, totalBytes: size))
            #expect(try await read(model.respond(to: color, images: [.file(picture)])) == Reference.answer("picture"))
            await runtime.shutDown()
        }

        @Test func loadingTellsAndRefuses() async throws {
            let runtime = try await Shared.shared.pair(.helper).0
            await #expect(throws: SmolVLMError.self) {
                try await runtime.loadModel(.folder(URL(fileURLWithPath: "/no/such/folder")))
            }
            let model = try await runtime.loadModel(.folder(demo.appendingPathComponent("model")), dtype: .float32)
            try await model.warmUp()
            try await model.unload()
            #expect(await failure(model.respond(to: color)) == .closed)
        }

        @Test func whatPythonPrintsIsLogged() async throws {
            let lines = Locked<[LogLine]>([])
            let environment = try fake(
                "",
                main: """
                    import json, sys
                    print("a line", file=sys.stderr, flush=True)
                    number = json.loads(sys.stdin.readline())["id"]
                    print(json.dumps({"event": "ready", "id": number, "protocol": 1}), flush=True)
                    sys.stdin.readline()
                    """)
            let runtime = try await Runtime.start(
                environment, options: .init(log: { line in lines.with { $0.append(line) } }))
            #expect(await eventually { lines.with { $0 } == [LogLine(level: "output", message: "a line")] })
            await runtime.shutDown()
        }
    }
}
