"""What is trained, its losses and gradients, and the steps of the optimizer."""
