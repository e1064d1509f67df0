"""The types that all providers share: requests, messages, chunks, turns, streams and errors.

Read in this order: ``messages``, ``request``, ``chunks``, ``turn``, ``stream``, ``model``. ``codec`` converts them to
JSON and back.
"""
