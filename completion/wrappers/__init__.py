"""Models around other models: retrying a call, and falling back to another model."""
