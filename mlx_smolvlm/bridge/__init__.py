"""What Swift apps, and any other program that is not Python, drive: plain types in, JSON out. See docs/swift.md."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bridge import BridgeEngine as Engine

__all__ = ["Engine"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """`Engine`, when it is first used: the helper must guard its streams before anything large is imported."""
        if name == "Engine":
            from .bridge import BridgeEngine as Engine

            return Engine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
