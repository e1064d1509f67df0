"""A chat page that shows answers while the model writes them, under WSGI and under ASGI."""
