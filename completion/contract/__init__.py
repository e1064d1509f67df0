"""The contract: what is asked and what is answered, with no provider in it.

Read in this order: ``messages``, ``request``, ``chunks``, ``turn``, ``stream``, ``model``; ``codec`` is their JSON.
"""
