"""Tables in, tables out: no files, no torch, no pictures."""
