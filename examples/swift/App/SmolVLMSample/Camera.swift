#if canImport(AVFoundation)
    @preconcurrency import AVFoundation
    import SmolVLM

    /// The camera, whose frames are copied in its delegate and handed over.
    final class Camera: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
        private let session = AVCaptureSession()
        private let queue = DispatchQueue(label: "camera")  // what follows is used there only
        private var frames: LiveFrames?
        private var isSetUp = false

        /// Whether there is a camera that may be used.
        func start(into frames: LiveFrames) async -> Bool {
            guard await AVCaptureDevice.requestAccess(for: .video) else { return false }
            return await withCheckedContinuation { continuation in
                queue.async { [self] in
                    self.frames = frames
                    isSetUp = isSetUp || setUp()
                    if isSetUp { session.startRunning() }
                    continuation.resume(returning: isSetUp)
                }
            }
        }

        func stop() {
            queue.async { [self] in
                session.stopRunning()
                frames?.finish()
                frames = nil
            }
        }

        private func setUp() -> Bool {
            guard let device = AVCaptureDevice.default(for: .video),
                let input = try? AVCaptureDeviceInput(device: device),
                session.canAddInput(input)
            else { return false }
            let output = AVCaptureVideoDataOutput()
            output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
            output.alwaysDiscardsLateVideoFrames = true
            output.setSampleBufferDelegate(self, queue: queue)
            guard session.canAddOutput(output) else { return false }
            session.addInput(input)
            session.addOutput(output)
            return true
        }

        func captureOutput(_: AVCaptureOutput, didOutput sample: CMSampleBuffer, from _: AVCaptureConnection) {
            guard let buffer = CMSampleBufferGetImageBuffer(sample), let pixels = try? Pixels(copying: buffer) else {
                return
            }
            frames?.append(pixels, at: CMSampleBufferGetPresentationTimeStamp(sample).seconds)
        }
    }
#endif
