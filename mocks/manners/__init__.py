"""manners hold what each fake vendor insists on: required parameters, paging, errors, login."""
