"""What a feature store holds, to be compared with another."""

from pathlib import Path

from msim_tf.data.store_database import StoreDatabase


def contents(path: Path) -> dict[str, object]:
    """The bytes of every file, but of the database its rows: where SQLite puts them depends on the order of writes."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    del files["store.db"]
    with StoreDatabase(path) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return files | {name: database.execute(f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables}
