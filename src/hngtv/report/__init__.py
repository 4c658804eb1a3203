"""From scores to statements: statistics, tables, figures and the page."""
