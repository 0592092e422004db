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

    /// The Python that `MLX_SMOLVLM_PYTHON` names; else that of the app's resources (`python/bin/python3`, with the
    /// packages in `packages`), or of `.venv` in the current folder.
    ///
    /// - Throws: `SmolVLMError.pythonNotFound` with all places where there is none.
    public static func discovered() throws -> Self {
        try discovered(
            named: ProcessInfo.processInfo.environment["MLX_SMOLVLM_PYTHON"], resources: Bundle.main.resourceURL,
            current: URL(fileURLWithPath: FileManager.default.currentDirectoryPath))
    }

    static func discovered(named name: String?, resources: URL?, current: URL) throws -> Self {
        var places = [Self(executable: current.appendingPathComponent(".venv/bin/python"))]
        if let resources {
            let packages = resources.appendingPathComponent("packages")
            let hasPackages = FileManager.default.fileExists(atPath: packages.path)
            let bundled = resources.appendingPathComponent("python/bin/python3")
            places.insert(Self(executable: bundled, extraSearchPaths: hasPackages ? [packages] : []), at: 0)
        }
        if let name { places = [Self(executable: URL(fileURLWithPath: name))] }
        if let found = places.first(where: { (try? $0.checkExecutable()) != nil }) { return found }
        throw SmolVLMError.pythonNotFound(tried: places.map(\.executable.path))
    }

    func checkExecutable() throws {
        guard FileManager.default.isExecutableFile(atPath: executable.path) else {
            throw SmolVLMError.pythonNotFound(tried: [executable.path])
        }
    }
}
