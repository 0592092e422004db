"""What is published of the family: scores and known answers."""
