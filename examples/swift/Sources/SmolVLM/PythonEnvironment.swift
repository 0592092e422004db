import Foundation

/// Which Python runs mlx-smolvlm. Nothing runs before `Runtime.start`.
public struct PythonEnvironment: Sendable, Hashable {
    /// The interpreter, such as `.venv/bin/python`.
    public var executable: URL
    /// Folders that come first in `sys.path`, such as one that `pip install --target` has filled.
    public var extraSearchPaths: [URL]
    /// Environment variables for Python, such as `HF_HOME`. They must be given here: Python does not see those that the
    /// app sets later.
    public var variables: [String: String]

    public init(executable: URL, extraSearchPaths: [URL] = [], variables: [String: String] = [:]) {
        self.executable = executable
        self.extraSearchPaths = extraSearchPaths
        self.variables = variables
    }

    /// The Python that `MLX_SMOLVLM_PYTHON` names, that of the app's resources (`python/bin/python3`), or that of
    /// `.venv` in the current folder.
    ///
    /// - Throws: `SmolVLMError.pythonNotFound` with all places where there is none.
    public static func discovered() throws -> Self {
        var tried: [String] = []
        let current = URL(fileURLWithPath: FileManager.default.currentDirectoryPath)
        let places = [
            ProcessInfo.processInfo.environment["MLX_SMOLVLM_PYTHON"].map { URL(fileURLWithPath: $0) },
            Bundle.main.resourceURL?.appendingPathComponent("python/bin/python3"),
            current.appendingPathComponent(".venv/bin/python"),
        ]
        for place in places.compactMap({ $0 }) {
            if FileManager.default.isExecutableFile(atPath: place.path) { return Self(executable: place) }
            tried.append(place.path)
        }
        throw SmolVLMError.pythonNotFound(tried: tried)
    }

    func checkExecutable() throws {
        guard FileManager.default.isExecutableFile(atPath: executable.path) else {
            throw SmolVLMError.pythonNotFound(tried: [executable.path])
        }
    }
}
