"""The embedded model: its weights, its chat template, and the llama.cpp server that runs it."""
