"""Pictures: from archives and record files, decoded and resized, into the memory of a batch."""
