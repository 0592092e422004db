import CPythonRuntime
import Foundation

/// An engine in a helper process.
final class HelperTransport: Transport {
    private struct State {
        var isOpen = true  // whether the socket may be used
        var isReaped = false  // whether the process's number may be another's
        var printed = ""
        var queued = 0  // bodies that are on `queue`
    }

    /// Finds the package before its output is the wire's alone, so that a missing one is told in the wire's own words.
    private static let bootstrap = """
        import sys
        sys.path[:0] = sys.argv[1:]
        try:
            import mlx_smolvlm.bridge
        except ImportError as error:
            import json, os
            message = " ".join(f"{type(error).__name__}: {error}".split())
            os.write(1, json.dumps({"event": "error", "id": None, "kind": "package_missing", "message": message}).encode() + b"\\n")
            raise SystemExit(1)
        import runpy
        runpy.run_module("mlx_smolvlm.bridge", run_name="__main__", alter_sys=True)
        """
    private static let keptOutput = 2000

    private let queue = DispatchQueue(label: "SmolVLM helper")
    let processIdentifier: pid_t
    private let socket: Int32
    private let state = Locked(State())
    private let handler: @Sendable (Incoming) -> Void

    /// Starts a helper. `handler` is called from its threads.
    init(_ environment: PythonEnvironment, handler: @escaping @Sendable (Incoming) -> Void) throws {
        try environment.checkExecutable()
        let arguments =
            [environment.executable.path, "-I", "-X", "utf8", "-c", Self.bootstrap]
            + environment.extraSearchPaths.map(\.path)
        let helper = try startProcess(arguments, variables: environment.variables)
        processIdentifier = helper.process
        socket = helper.socket
        self.handler = handler
        let errorOutput = helper.error_output
        let readers = DispatchGroup()
        readers.enter()
        start("SmolVLM events") { [self] in
            readLines(of: socket) { handler(.event($0)) }
            killUnlessEnded(after: .seconds(2))
            readers.leave()
        }
        start("SmolVLM output") { [self] in
            readLines(of: errorOutput) { note(String(decoding: $0, as: UTF8.self)) }
            close(errorOutput)
        }
        start("SmolVLM helper") { [self] in
            cpr_wait(processIdentifier)
            let status = state.with { state in
                state.isReaped = true
                return cpr_reap(processIdentifier)
            }
            // A process that it has started may hold the socket open.
            if readers.wait(timeout: .now() + 1) == .timedOut { shutdown(socket, Int32(SHUT_RDWR)) }
            readers.wait()
            handler(.ended(status: status, lastOutput: lastOutput))
            state.with { $0.isOpen = false }
            enqueue { [socket] in close(socket) }
        }
    }

    func enqueue(_ body: @escaping @Sendable () -> Void) {
        state.with { enqueue(body, &$0) }
    }

    private func enqueue(_ body: @escaping @Sendable () -> Void, _ state: inout State) {
        state.queued += 1
        queue.async { [self] in
            body()
            self.state.with { $0.queued -= 1 }
        }
    }

    func send(_ line: Data, _ attachments: [Data], id _: Int) {
        write([line + Data("\n".utf8)] + attachments)
    }

    func cancel(_ id: Int) {
        write([Data("{\"request\":\"cancel\",\"id\":\(id)}\n".utf8)])
    }

    func push(_ pixels: Pixels, seconds: Double, source: Int) -> Bool {
        let line = """
            {"request":"frame","source":\(source),"width":\(pixels.width),"height":\(pixels.height),\
            "bytes_per_row":\(pixels.bytesPerRow),"format":"\(pixels.format.rawValue)","seconds":\(seconds),\
            "attachments":[\(pixels.data.count)]}

            """
        return writeAll([Data(line.utf8), pixels.data])
    }

    func stop() {
        state.with { state in
            if state.isOpen { _ = shutdown(socket, Int32(SHUT_WR)) }
        }
        killUnlessEnded(after: .seconds(2))
    }

    func kill() {
        state.with { state in
            if !state.isReaped { _ = Foundation.kill(processIdentifier, SIGKILL) }
        }
    }

    /// Writes what the socket takes at once, which spares most requests the way over another thread, and leaves the rest
    /// to `queue`. What is already there goes first.
    private func write(_ pieces: [Data]) {
        state.with { state in
            guard state.isOpen else { return }
            var rest = pieces[...]
            while state.queued == 0, let piece = rest.first {
                let sent = send(piece, waits: false)
                guard sent >= 0 else { return }
                rest = sent < piece.count ? [piece.dropFirst(sent)] + rest.dropFirst() : rest.dropFirst()
                if sent < piece.count { break }
            }
            if !rest.isEmpty { enqueue({ [self, rest] in _ = writeAll(rest) }, &state) }
        }
    }

    /// Waits until all of it is written. False if the helper has gone, which its end tells.
    private func writeAll(_ pieces: some Sequence<Data>) -> Bool {
        guard state.with({ $0.isOpen }) else { return false }
        return pieces.allSatisfy { send($0, waits: true) == $0.count }
    }

    private func send(_ data: Data, waits: Bool) -> Int {
        data.withUnsafeBytes { cpr_send(socket, $0.baseAddress, $0.count, waits) }
    }

    private func killUnlessEnded(after seconds: DispatchTimeInterval) {
        DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + seconds) { [weak self] in self?.kill() }
    }

    private func note(_ line: String) {
        state.with { $0.printed = String(($0.printed + line + "\n").suffix(Self.keptOutput)) }
        handler(.output(line))
    }

    private var lastOutput: String {
        state.with { $0.printed.split(separator: "\n").suffix(3).joined(separator: "; ") }
    }
}

/// Starts a process whose streams are ours; see `cpr_helper_start`.
func startProcess(_ arguments: [String], variables: [String: String]) throws -> cpr_helper {
    let environment = ProcessInfo.processInfo.environment.merging(variables) { $1 }
    var argumentPointers = arguments.map { strdup($0) } + [nil]
    var environmentPointers = environment.map { strdup("\($0)=\($1)") } + [nil]
    defer { for pointer in argumentPointers + environmentPointers { free(pointer) } }
    var helper = cpr_helper()
    let problem = cpr_helper_start(&argumentPointers, &environmentPointers, &helper)
    guard problem == 0 else {
        throw SmolVLMError.python(kind: "OSError", message: "\(arguments[0]): \(String(cString: strerror(problem)))")
    }
    return helper
}

/// Calls with each line, without its end, until nothing more comes.
func readLines(of file: Int32, _ body: (Data) -> Void) {
    var buffer = [UInt8](repeating: 0, count: 64 * 1024)
    var line = Data()
    while true {
        let count = read(file, &buffer, buffer.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { break }
        var start = 0
        while let end = buffer[start..<count].firstIndex(of: UInt8(ascii: "\n")) {
            line.append(contentsOf: buffer[start..<end])
            body(line)
            line = Data()
            start = end + 1
        }
        line.append(contentsOf: buffer[start..<count])
    }
    if !line.isEmpty { body(line) }
}

/// Runs on a thread of its own, which may wait as long as it likes.
func start(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = Thread(block: body)
    thread.name = name
    thread.start()
}
