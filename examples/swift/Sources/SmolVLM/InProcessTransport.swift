import CPythonRuntime
import Foundation

/// The engine in this process; there is one, and it stays until the process ends.
final class InProcessTransport: Transport {
    /// What Python was started with, and who listens.
    private struct Host {
        var environment: PythonEnvironment?
        var listeners: [Int: @Sendable (Incoming) -> Void] = [:]
    }

    private static let host = Locked(Host())
    private static let queue = DispatchQueue(label: "SmolVLM Python")

    private let number = nextRequestID()

    /// Starts Python, if it is not there yet. Waits for it, so on a thread of its own only.
    ///
    /// - Throws: `SmolVLMError.incompatible` if it was started with another environment.
    init(
        _ environment: PythonEnvironment, library: URL?,
        handler: @escaping @Sendable (Incoming) -> Void
    ) throws {
        let first = Self.host.with { host in
            if host.environment == nil { host.environment = environment }
            return host.environment
        }
        guard first == environment else {
            throw SmolVLMError.incompatible(
                found: "Python of \(first?.executable.path ?? "none") in this process, which starts once",
                needed: "\(environment.executable.path), its search paths, variables and isOffline as they were then")
        }
        do {
            let path = try library?.path ?? Self.library(of: environment)
            for (name, value) in environment.variables { setenv(name, value, 1) }
            try Self.startPython(library: path, environment)
        } catch {
            if cpr_python_is_started() == 0 { Self.host.with { $0.environment = nil } }
            throw error
        }
        Self.host.with { $0.listeners[number] = handler }
    }

    func enqueue(_ body: @escaping @Sendable () -> Void) {
        Self.queue.async(execute: body)
    }

    func send(_ line: Data, _ attachments: [Data], id: Int) {
        enqueue {
            var error = [CChar](repeating: 0, count: 512)
            let count = attachments.count
            let parts = attachments.map { $0 as NSData }  // whose bytes stay where they are
            let bytes = parts.map { cpr_bytes(data: $0.bytes, length: $0.length) }
            let result = line.withUnsafeBytes { buffer in
                withExtendedLifetime(parts) {
                    cpr_python_submit(
                        cpr_bytes(data: buffer.baseAddress, length: buffer.count), bytes, count, &error, error.count)
                }
            }
            if result != 0 {
                let text = error.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
                Self.tell(.event(Self.failure(of: id, text)))
            }
        }
    }

    func cancel(_ id: Int) {
        enqueue { cpr_python_cancel(Int64(id)) }
    }

    func push(_ pixels: Pixels, seconds: Double, source: Int) -> Bool {
        pixels.data.withUnsafeBytes { buffer in
            cpr_python_push_frame(
                Int64(source), cpr_bytes(data: buffer.baseAddress, length: buffer.count), Int64(pixels.width),
                Int64(pixels.height), Int64(pixels.bytesPerRow), pixels.format.rawValue, seconds) != 0
        }
    }

    /// Nobody listens any more; Python stays.
    func stop() {
        let listener = Self.host.with { $0.listeners.removeValue(forKey: number) }
        listener?(.ended(status: 0, lastOutput: ""))
    }

    func kill() {
        stop()
    }

    private static func tell(_ incoming: Incoming) {
        for listener in host.with({ Array($0.listeners.values) }) { listener(incoming) }
    }

    private static func failure(of id: Int, _ message: String) -> Data {
        let object: JSONValue = [
            "event": "error", "id": .integer(id), "kind": "python", "type": "Error", "message": .string(message),
        ]
        return (try? JSONEncoder().encode(object)) ?? Data()
    }

    private static func startPython(library: String, _ environment: PythonEnvironment) throws {
        let paths = environment.extraSearchPaths.map { strdup($0.path) }
        defer { for path in paths { free(path) } }
        var error = [CChar](repeating: 0, count: 512)
        let callback: cpr_event = { _, json, length in
            guard let json else { return }
            InProcessTransport.tell(.event(Data(bytes: json, count: length)))
        }
        let result = paths.map { UnsafePointer($0) }.withUnsafeBufferPointer {
            cpr_python_start(
                library, environment.executable.path, $0.baseAddress, $0.count, callback, nil, &error, error.count)
        }
        guard result == 0 else {
            let text = error.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            if text.contains("ModuleNotFoundError") || text.contains("ImportError") {
                throw SmolVLMError.packageMissing(text)
            }
            throw SmolVLMError.incompatible(found: text, needed: "the library of \(environment.executable.path)")
        }
    }

    /// Asks the interpreter for its library.
    private static func library(of environment: PythonEnvironment) throws -> String {
        try environment.checkExecutable()
        let code = """
            import os, sys, sysconfig
            value = lambda name: sysconfig.get_config_var(name) or ""
            folders = [value("PYTHONFRAMEWORKPREFIX"), value("LIBDIR"), sys.base_prefix + "/lib"]
            folders.append(os.path.join(value("LIBDIR"), value("MULTIARCH")))
            names = [value("INSTSONAME"), value("LDLIBRARY")]
            paths = [os.path.join(folder, name) for folder in folders for name in names if folder and name]
            found = [path for path in paths if os.path.isfile(path) and not path.endswith(".a")]
            print((found or [""])[0], file=sys.stderr)
            """
        let probe = try startProcess([environment.executable.path, "-I", "-X", "utf8", "-c", code], variables: [:])
        var lines: [String] = []
        readLines(of: probe.error_output) { lines.append(String(decoding: $0, as: UTF8.self)) }
        close(probe.error_output)
        close(probe.socket)
        guard cpr_reap(probe.process) == 0, let path = lines.last, !path.isEmpty else {
            throw SmolVLMError.incompatible(
                found: "\(environment.executable.path), which has no shared library",
                needed: "a Python with libpython, or the helper process")
        }
        return path
    }
}
