import Foundation
import SmolVLM

print("demo")
