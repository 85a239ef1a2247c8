"""Where results live: files, stage directories, tensors and tables in Parquet, the DuckDB catalogue.

Knows no Prefect and no torch modules.
"""

from storage.files import Files, open_files
from storage.runs import RunRecord, RunStore
from storage.stages import Artifact, Draft, StageKey, StageStore
from storage.tables import TableSchema

__all__ = ["Artifact", "Draft", "Files", "RunRecord", "RunStore", "StageKey", "StageStore", "TableSchema", "open_files"]
