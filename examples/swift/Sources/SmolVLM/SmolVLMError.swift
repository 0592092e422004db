import Foundation

/// What can go wrong. Each has a description of one line.
public enum SmolVLMError: Error, Sendable, Equatable, LocalizedError {
    /// There is no Python at any of these places.
    case pythonNotFound(tried: [String])
    /// The Python that was found cannot import mlx-smolvlm, or something that it needs.
    case packageMissing(String)
    /// The package, or the library, is of another version.
    case incompatible(found: String, needed: String)
    /// A request cannot be answered as it is: options out of range, an image that cannot be read, too long a prompt.
    case invalidRequest(String)
    /// There is no such image, video, model or session.
    case fileNotFound(String)
    /// A download failed.
    case network(String)
    /// MLX or Python has no memory for it. If the GPU is lost with it, the helper is started again; in process, only the app
    /// can be.
    case outOfMemory(String)
    /// The helper process has ended: its exit status, or minus the signal that ended it, and what it printed last.
    case helperEnded(status: Int32, lastOutput: String)
    /// Python raised an exception of another kind.
    case python(kind: String, message: String)
    /// What was used is closed: the runtime was shut down, the model unloaded, or a session was lost with its helper.
    case closed

    public var errorDescription: String? {
        switch self {
        case .pythonNotFound(let tried):
            "no Python found; tried \(tried.joined(separator: ", ")). Set MLX_SMOLVLM_PYTHON, or pass its path"
        case .packageMissing(let reason):
            "this Python cannot import mlx-smolvlm (\(reason)); install it there with pip install mlx-smolvlm"
        case .incompatible(let found, let needed):
            "incompatible: found \(found), needed \(needed)"
        case .invalidRequest(let message), .fileNotFound(let message), .network(let message), .outOfMemory(let message):
            message
        case .helperEnded(let status, let lastOutput):
            "the helper process ended \(status < 0 ? "by signal \(-status)" : "with status \(status)")"
                + (lastOutput.isEmpty ? "" : ": \(lastOutput)")
        case .python(let kind, let message):
            "\(kind): \(message)"
        case .closed:
            """
            closed: the runtime was shut down, the model unloaded, or the session lost when the helper process ended; \
            begin a new one, or load the session from its file
            """
        }
    }

    init(_ event: Event) {
        let message = event.message ?? "unknown error"
        switch event.kind {
        case "invalid_request": self = .invalidRequest(message)
        case "file_not_found": self = .fileNotFound(message)
        case "network": self = .network(message)
        case "out_of_memory": self = .outOfMemory(message)
        case "package_missing": self = .packageMissing(message)
        case "incompatible": self = .incompatible(found: message, needed: "protocol \(protocolVersion)")
        case "closed": self = .closed
        default: self = .python(kind: event.type ?? "Exception", message: message)
        }
    }
}
