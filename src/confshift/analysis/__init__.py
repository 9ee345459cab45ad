"""Tables in, tables out: knows no file, no torch, no picture."""
