"""The only writers of observed traffic."""
