"""From run folders to the paper's tables and figure, with the published numbers beside ours."""
