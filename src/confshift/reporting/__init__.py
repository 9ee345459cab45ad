"""From findings and tables to one offline HTML page."""
