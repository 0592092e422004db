import Foundation
import SmolVLM

let usage = """
    usage: smolvlm-demo [--model FOLDER_OR_HUB_ID] [--in-process] COMMAND
      image FILE... -- QUESTION    ask about images
      video FILE -- QUESTION       ask about a video
      live FILE -- QUESTION        caption raw frames: bgra of 64 x 48, 30 a second, as they come out of
                                   ffmpeg -i FILE -vf scale=64:48,fps=30 -f rawvideo -pix_fmt bgra OUT
      chat [FILE...]               a conversation about images, a question per line
    The Python is that of MLX_SMOLVLM_PYTHON, or of .venv in the current folder.
    """

func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("\(message)\n".utf8))
    exit(2)
}

/// Prints an answer while it is made.
func show(_ answer: AsyncThrowingStream<Token, any Error>) async throws {
    for try await token in answer {
        print(token.text, terminator: "")
        fflush(nil)
    }
    print()
}

func run(_ model: Model, _ command: String, _ files: [URL], _ question: String) async throws {
    switch command {
    case "image":
        try await show(model.respond(to: question, images: files.map { .file($0) }))
    case "video":
        try await show(model.respond(to: question, videos: files.map { .file($0) }))
    case "live":
        let data = try Data(contentsOf: files[0])
        let frames = LiveFrames()
        let (width, height, rate) = (64, 48, 30)
        let size = 4 * width * height
        let feeding = Task.detached {
            let began = ContinuousClock.now
            for number in 0..<data.count / size {
                let pixels = try Pixels(
                    data.subdata(in: number * size..<(number + 1) * size), width: width, height: height,
                    bytesPerRow: 4 * width, format: .bgra)
                try await Task.sleep(until: began + .milliseconds(number * 1000 / rate))
                frames.append(pixels, at: Double(number) / Double(rate))
            }
            frames.finish()
        }
        for try await caption in model.captions(of: frames, prompt: question, options: .init(window: 2)) {
            print("\(caption.startS)-\(caption.endS) s (\(caption.droppedFrames) dropped): \(caption.text)")
        }
        try await feeding.value
    case "chat":
        let session = try await model.makeSession()
        var images = files.map { ImageInput.file($0) }
        while let line = readLine() {
            try await show(session.respond(to: line, images: images))
            images = []
        }
    default:
        fail(usage)
    }
}

var words = Array(CommandLine.arguments.dropFirst())
var source = ModelSource.demo
var options = RuntimeOptions()
while let word = words.first, word.hasPrefix("--") {
    words.removeFirst()
    if word == "--in-process" {
        options.isolation = .inProcess()
    } else if word == "--model", let name = words.first {
        words.removeFirst()
        let isFolder = FileManager.default.fileExists(atPath: name)
        source = isFolder ? .folder(URL(fileURLWithPath: name)) : .hub(name)
    } else {
        fail(usage)
    }
}
guard let command = words.first else { fail(usage) }
let parts = words.dropFirst().split(separator: "--", maxSplits: 1, omittingEmptySubsequences: false)
let files = (parts.first ?? []).map { URL(fileURLWithPath: $0) }
let question = parts.count > 1 ? parts[1].joined(separator: " ") : ""
if command != "chat", files.isEmpty || question.isEmpty { fail(usage) }

do {
    let runtime = try await Runtime.start(.discovered(), options: options)
    let model = try await runtime.loadModel(
        source,
        download: {
            let megabytes = "\($0.doneBytes / 1_000_000) of \($0.totalBytes / 1_000_000) MB"
            FileHandle.standardError.write(Data("downloading: \(megabytes)\n".utf8))
        })
    try await run(model, command, files, question)
    await runtime.shutDown()
} catch {
    fail("error: \(error.localizedDescription)")
}
