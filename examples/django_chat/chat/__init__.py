"""A chat page whose answers arrive while the model writes them, under WSGI and under ASGI."""
