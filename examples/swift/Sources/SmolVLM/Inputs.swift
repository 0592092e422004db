import Foundation

#if canImport(CoreVideo)
    import CoreVideo
#endif
#if canImport(CoreGraphics)
    import CoreGraphics
    import ImageIO
    import UniformTypeIdentifiers
#endif

/// An image to ask about.
public enum ImageInput: Sendable, Hashable {
    /// A file that Pillow reads: PNG, JPEG, WebP, HEIC where it is built in, TIFF, ...
    case file(URL)
    /// The bytes of such a file.
    case encoded(Data)
    /// Uncompressed pixels, as a camera or a renderer has them.
    case pixels(Pixels)
}

/// A video to ask about.
public enum VideoInput: Sendable, Hashable {
    /// A file that FFmpeg's libraries read: MP4, MOV, WebM, ...
    case file(URL)
    /// Frames that the app has decoded, when each is shown, and the length of the video, in seconds.
    case frames([Pixels], times: [Double], duration: Double)
}

/// An uncompressed image: upright, in sRGB.
public struct Pixels: Sendable, Hashable {
    /// The order of the bytes of a pixel. Alpha is not premultiplied.
    public enum Format: String, Sendable, Hashable {
        case rgb, rgba, bgra

        var bytes: Int { self == .rgb ? 3 : 4 }
    }

    public let data: Data
    public let width: Int
    public let height: Int
    /// From the beginning of one row to that of the next.
    public let bytesPerRow: Int
    public let format: Format

    /// Pixels in memory; rows may be padded.
    ///
    /// - Throws: `SmolVLMError.invalidRequest` if there are no pixels, or too few bytes for them.
    public init(_ data: Data, width: Int, height: Int, bytesPerRow: Int, format: Format) throws {
        guard width > 0, height > 0, bytesPerRow >= width * format.bytes else {
            throw SmolVLMError.invalidRequest(
                "pixels are \(width) x \(height) with \(bytesPerRow) bytes per row, expected at least one pixel, and "
                    + "rows of at least \(max(width, 1) * format.bytes) bytes")
        }
        let least = bytesPerRow * (height - 1) + width * format.bytes
        guard data.count >= least, data.count <= bytesPerRow * height else {
            throw SmolVLMError.invalidRequest(
                "pixels have \(data.count) bytes, expected \(bytesPerRow * height): \(height) rows of \(bytesPerRow)")
        }
        self.data = data
        self.width = width
        self.height = height
        self.bytesPerRow = bytesPerRow
        self.format = format
    }

    var layout: [String: JSONValue] {
        [
            "width": .integer(width), "height": .integer(height), "bytes_per_row": .integer(bytesPerRow),
            "format": .string(format.rawValue),
        ]
    }
}

extension URL {
    /// What Python is given: the path of a file. Another address is not fetched, but named by the error that follows.
    var pathOrAddress: String { isFileURL ? path : absoluteString }
}

/// The bytes that go with a request.
struct Attachments {
    var data: [Data] = []

    private mutating func add(_ bytes: Data) -> JSONValue {
        data.append(bytes)
        return .integer(data.count - 1)
    }

    mutating func add(_ pixels: Pixels) -> JSONValue {
        .object(pixels.layout.merging(["attachment": add(pixels.data)]) { $1 })
    }

    mutating func add(_ images: [ImageInput]) -> JSONValue {
        .array(
            images.map {
                switch $0 {
                case .file(let url): ["path": .string(url.pathOrAddress)]
                case .encoded(let bytes): ["attachment": add(bytes)]
                case .pixels(let pixels): add(pixels)
                }
            })
    }

    mutating func add(_ videos: [VideoInput]) -> JSONValue {
        .array(
            videos.map {
                switch $0 {
                case .file(let url): ["path": .string(url.pathOrAddress)]
                case .frames(let frames, let times, let duration):
                    [
                        "frames": .array(frames.map { add($0) }), "times_s": .array(times.map { .number($0) }),
                        "duration_s": .number(duration),
                    ]
                }
            })
    }
}

#if canImport(CoreVideo)
    extension Pixels {
        /// Copies a buffer of the camera, whose format must be `kCVPixelFormatType_32BGRA`. Call it in the delegate: the
        /// buffer is reused afterwards.
        public init(copying buffer: CVPixelBuffer) throws {
            let format = CVPixelBufferGetPixelFormatType(buffer)
            guard format == kCVPixelFormatType_32BGRA else {
                throw SmolVLMError.invalidRequest(
                    "the pixel buffer has format \(format); ask the camera for kCVPixelFormatType_32BGRA")
            }
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            guard let base = CVPixelBufferGetBaseAddress(buffer) else {
                throw SmolVLMError.invalidRequest("the pixel buffer has no base address")
            }
            let height = CVPixelBufferGetHeight(buffer)
            let bytesPerRow = CVPixelBufferGetBytesPerRow(buffer)
            try self.init(
                Data(bytes: base, count: bytesPerRow * height), width: CVPixelBufferGetWidth(buffer), height: height,
                bytesPerRow: bytesPerRow, format: .bgra)
        }
    }
#endif

#if canImport(CoreGraphics)
    extension ImageInput {
        /// An image of Core Graphics, turned upright, as an encoded one.
        public init(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) throws {
            let data = NSMutableData()
            let type = UTType.png.identifier as CFString
            guard let destination = CGImageDestinationCreateWithData(data, type, 1, nil) else {
                throw SmolVLMError.invalidRequest("the image cannot be encoded")
            }
            // Python turns images upright by their EXIF orientation.
            let properties = [kCGImagePropertyOrientation: orientation.rawValue] as CFDictionary
            CGImageDestinationAddImage(destination, image, properties)
            guard CGImageDestinationFinalize(destination) else {
                throw SmolVLMError.invalidRequest("the image cannot be encoded")
            }
            self = .encoded(data as Data)
        }
    }
#endif
