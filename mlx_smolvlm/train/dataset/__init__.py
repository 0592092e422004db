"""Files of rows are read: conversations, preferences, and what of them is trained."""
