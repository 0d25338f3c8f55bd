"""The pages of the Policy Store."""
