"""`/mcp`: the modes, searching and ingesting as tools for MCP clients."""

from serve.mcp_door.door import PATH, McpDoor

__all__ = ["PATH", "McpDoor"]
