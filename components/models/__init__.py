"""Language models, whoever serves them: in this process, Ollama, OpenAI-compatible servers."""
