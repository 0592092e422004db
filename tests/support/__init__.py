"""What tests share: checkpoints, media, servers, command lines, and the makers of the goldens."""
