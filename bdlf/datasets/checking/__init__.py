"""What `bdlf.check` looks at: the files on disk, the counts against the published ones, likely mistakes."""
