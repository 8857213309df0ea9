"""What a user can do with a net: each verb is one function in a file of its own name."""
