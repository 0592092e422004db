"""Files of data sets are read: questions, options, answers, and where images lie."""
