"""Where records come from: one module, one class, one `type:` in the configuration."""
