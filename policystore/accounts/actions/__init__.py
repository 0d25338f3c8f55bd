"""The only writers of members, keys and sign-in links; each change leaves an account event in its transaction."""
