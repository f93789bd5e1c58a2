# `make` alone prints what there is. Everything here is also a plain go command; CI runs .ci/run.

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Packages whose tests run under the race detector: those that do several things at once.
RACE := ./record/... ./caliper/... ./plan/... ./etl/... ./engine/... ./eventlog/... ./sink/... ./lake/... ./source/... ./collect/... ./web/... ./control/... ./cmd/millrace

.PHONY: help build release test long race lint generate bench fuzz demo

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the command into bin/millrace
	go build -trimpath -o bin/millrace ./cmd/millrace

release: ## build VERSION as a static program, with its checksum, into dist/
	scripts/release.sh $(or $(VERSION),0.0.0) dist

test: ## run the tests that need nothing but Go and a C compiler
	go test -timeout 30m ./...

long: ## the random tests of jobs, log and binary in full: hours on two cores
	MILLRACE_SCHEDULES=40000 go test -count=1 -timeout 1h -run TestOrderDoesNotMatter ./etl
	MILLRACE_SCHEDULES=10000 go test -count=1 -timeout 4h -run 'TestSimulation$$|TestOrderDoesNotMatter' ./engine
	MILLRACE_WAITING=1000000 go test -count=1 -timeout 1h -run TestWaitingRecordsDoNotSlowTheRest ./engine
	MILLRACE_REWINDS=200 go test -count=1 -timeout 2h -run 'TestRewind$$' .
	MILLRACE_SCHEDULES=100 go test -count=1 -timeout 1h -run TestBrokerFaults ./eventlog
	MILLRACE_SCHEDULES=200 go test -count=1 -timeout 1h -run TestJobWithBrokerFaults .
	MILLRACE_SCHEDULES=1000 go test -count=1 -timeout 1h -run TestCompareSeesWhatMapsSee ./delivery
	MILLRACE_KILLS=1000 go test -count=1 -timeout 4h -v -run TestKill ./test

race: ## run the concurrent packages under the race detector
	go test -race $(RACE)

lint: ## vet, linters and formatting as CI checks them
	go vet ./...
	go run $(GOLANGCI) run ./...
	go run $(GOLANGCI) fmt --diff ./...

generate: ## re-create generated files; the tree stays clean
	go generate ./...
	go test ./cmd/millrace ./control -run Documented -update

bench: ## measure all that docs/benchmarks.md says, half an hour; BENCH=--quick for a minute
	go run ./cmd/millrace bench $(BENCH)

fuzz: ## each fuzz target for FUZZTIME, 30 s unless told
	scripts/fuzz.sh $(or $(FUZZTIME),30s)

demo: ## everything embedded, with a simulated school district
	go run ./cmd/millrace demo
