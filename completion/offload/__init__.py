"""Reading a blocking stream in a worker thread, for code that must not block."""
