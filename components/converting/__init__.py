"""Sources, posted as files of many kinds, become text."""
