"""Where documents go: one module, one class, one `type:` in the configuration."""
