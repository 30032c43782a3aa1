# Everything here is a plain go command with its flags remembered.

.PHONY: build test bench bench-verdict fuzz lint ci man

build: ## one static binary, ./inquest
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o inquest ./cmd/inquest

test: ## what the README promises
	go test ./...

bench: ## whole commands, then the packages; DUMP= and VMLINUX= choose others
	go run ./internal/bench -flat -dump $(or $(DUMP),testdata/example.kdump) $(if $(VMLINUX),-vmlinux $(VMLINUX))
	go test -run '^$$' -bench . -benchmem ./vmcore ./kernel ./stack

bench-verdict: ## readers of packet queues side by side, as root; SURICATA_ROOT= and GO_NFQUEUE= say where rivals are
	go run ./internal/bench/verdict $(ARGS)

FUZZTIME ?= 1m
fuzz: ## every fuzz target, FUZZTIME each
	.ci/fuzz $(FUZZTIME)

lint:
	.ci/lint

man: build ## manual pages, into ./man
	./inquest man man

ci:
	.ci/run
