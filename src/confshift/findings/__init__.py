"""Tables in, sentences out: one module for each question people ask."""
