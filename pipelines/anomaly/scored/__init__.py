"""What a scored scan leaves: files, pages, viewers, DICOM objects, and what an interrupted scoring goes on from."""
