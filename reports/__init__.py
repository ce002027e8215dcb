"""From finished runs to pages, figures, tables and trace files."""
