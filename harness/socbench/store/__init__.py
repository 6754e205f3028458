"""Session folders (Parquet and JSON): written once, read as one database by DuckDB."""
