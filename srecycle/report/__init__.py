"""Store records to tables, figures, and one self-contained HTML file."""
