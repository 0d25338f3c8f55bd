"""How the store uses its database, whatever is stored in it."""
