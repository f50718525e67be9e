"""The run folder: identity, record, logs, tracker."""
