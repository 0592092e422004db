"""What programs call: load, generate, batch, converse, caption. The public names live here."""
