"""A support chat: customers write to a model, and its refunds wait for a person at the desk."""
