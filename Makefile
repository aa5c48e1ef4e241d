.PHONY: manifests
manifests: ## write manifests/ from the code
	BELAY_WRITE_MANIFESTS=1 cargo test --test it -q committed_files_are_current
