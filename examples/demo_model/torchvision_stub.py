"""Import before transformers: lets torchvision be imported where it was built for another torch.

The video processor uses only its transforms, which are pure Python; registering its compiled operators is
what fails, so that is skipped.
"""

from torch import library

_register_fake = library.register_fake


def _skip_torchvision(operator, *args, **options):
    if isinstance(operator, str) and operator.startswith("torchvision::"):
        return lambda function: function
    return _register_fake(operator, *args, **options)


library.register_fake = _skip_torchvision
