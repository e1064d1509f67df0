"""The wire formats of the providers: what is sent, and how the events are read. No I/O, no keys."""
