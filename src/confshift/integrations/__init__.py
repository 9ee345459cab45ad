"""One module for each trainer; imports anything, imported by nobody."""
