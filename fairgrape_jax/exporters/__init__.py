"""What leaves: pruned networks in the forms that other frameworks read, with a model card."""

from fairgrape_jax.exporters.folder import Export, export
from fairgrape_jax.exporters.table import EXPORTERS

__all__ = ["EXPORTERS", "Export", "export"]
