"""What the command lines share: options, errors, signals and progress."""
