"""The modes in OpenAI's protocol: Chat Completions and Responses."""
