#if canImport(SwiftUI) && canImport(AVFoundation)
    import SmolVLM
    import SwiftUI
    import UniformTypeIdentifiers

    /// A camera with live captions, a picture to drop, and a stop button. Made for Xcode; see README.md beside it.
    @main struct SmolVLMSampleApp: App {
        var body: some Scene {
            WindowGroup { ContentView() }
        }
    }

    /// What the window shows.
    @MainActor @Observable final class Conversation {
        var status = "Starting…"
        var answer = ""
        let feed = CaptionFeed()
        private(set) var model: Model?
        private var asking: Task<Void, Never>?
        private let camera = Camera()

        func start() async {
            do {
                let runtime = try await Runtime.start(.discovered())
                model = try await runtime.loadModel(.demo)
                status = "\(runtime.information.package) on \(runtime.information.device)"
            } catch {
                status = error.localizedDescription
            }
        }

        func ask(about picture: URL) {
            guard let model else { return }
            asking?.cancel()
            answer = ""
            asking = Task {
                do {
                    for try await token in model.respond(to: "What is in the picture?", images: [.file(picture)]) {
                        answer += token.text
                    }
                } catch {
                    answer = error.localizedDescription
                }
            }
        }

        func watch() async {
            guard let model else { return }
            let frames = feed.start(model, prompt: "What is going on?", options: .init(window: 4))
            if await !camera.start(into: frames) { status = "The camera is not available" }
        }

        func stop() {
            asking?.cancel()
            feed.stop()
            camera.stop()
        }
    }

    struct ContentView: View {
        @State private var conversation = Conversation()

        var body: some View {
            VStack(alignment: .leading) {
                Text(conversation.status).foregroundStyle(.secondary)
                List(conversation.feed.captions, id: \.endS) { caption in
                    Text("\(caption.endS, format: .number.precision(.fractionLength(1))) s: \(caption.text)")
                }
                Text(conversation.feed.problem ?? conversation.answer)
                HStack {
                    Button("Watch the camera") { Task { await conversation.watch() } }
                    Button("Stop") { conversation.stop() }
                }
            }
            .padding()
            .frame(minWidth: 480, minHeight: 360)
            .task { await conversation.start() }
            .dropDestination(for: URL.self) { pictures, _ in
                pictures.first.map { conversation.ask(about: $0) } != nil
            }
        }
    }
#endif
