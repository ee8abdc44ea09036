"""Pictures of heads without a screen."""
