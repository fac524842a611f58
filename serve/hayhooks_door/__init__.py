"""The door that Hayhooks opens: `/{name}/run` for modes, plain pipelines and wrappers; `library` is the one adapter."""
