"""One file a provider, read in one order: names, the model, lower, assemble."""
