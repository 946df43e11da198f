"""What is kept: named selections, drafts of what is not saved yet, exports."""
