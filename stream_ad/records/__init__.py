"""The data contract: columns in memory, schemas on the wire."""
