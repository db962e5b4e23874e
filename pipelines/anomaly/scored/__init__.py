"""What a scored scan leaves: files, pages, viewers, objects, exports, and what an interrupted scoring goes on from."""
