"""From bytes to events: each module turns the pieces of a body into ``(name, JSON value)`` pairs."""
