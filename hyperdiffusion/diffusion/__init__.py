"""Stage 2: from fitted weights to a trained generator, and from it to new weights."""
