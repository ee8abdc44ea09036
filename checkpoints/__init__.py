"""Trained models that come along; installed as `hyperdiffusion.checkpoints`."""
