# Everything here is a plain go command with its flags remembered.

.PHONY: build test bench bench-verdict fuzz lint ci man scoreboard

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

SCOREBOARD_KERNELS ?= debian-6.1 linux-image-cloud-amd64/bookworm-backports nfqbug-6.1
SCOREBOARD_DIR ?= lkdtm.matrix
scoreboard: build ## docs/scoreboard.md: what explain says of the kernel's own crash tests; some 10 s each without KVM, goes on where it stood
	./inquest lab matrix lkdtm $(addprefix --kernel ,$(SCOREBOARD_KERNELS)) --dir $(SCOREBOARD_DIR) --markdown $(ARGS) >$(SCOREBOARD_DIR).md
	{ cat docs/scoreboard.intro.md; cat $(SCOREBOARD_DIR).md; } >docs/scoreboard.md
	rm $(SCOREBOARD_DIR).md

lint:
	.ci/lint

man: build ## manual pages, into ./man
	./inquest man man

ci:
	.ci/run
