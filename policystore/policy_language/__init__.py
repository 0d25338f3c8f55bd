"""The language of policies: documents, endpoints, scopes, diffs. Pure Python; imports no Django."""
