"""Google Drive, as far as a program may see it that was only given its own files (scope ``drive.file``)."""
