package api

import (
	"time"

	"millrace/control"
)

// StackPath is the address of the stack.
const StackPath = "/api/v1/stack"

// Stack is the environment that apps are deployed to, what it is made of, and what runs there.
type Stack struct {
	ID      string    `json:"id"` // tells it from others that have its name
	Name    string    `json:"name"`
	Created time.Time `json:"created"`

	Engine   string `json:"engine"`   // embedded: jobs are processes of this machine
	Version  string `json:"version"`  // of the program
	Platform string `json:"platform"` // linux/amd64: of the artifacts that it takes
	Parts    Parts  `json:"parts"`

	Processors int   `json:"processors"`
	Memory     int64 `json:"memory_mb"` // that the process and those of its jobs may hold
	Jobs       int   `json:"jobs"`      // that have a process
	JobsMemory int64 `json:"jobs_memory_mb"`

	Apps     []StackApp        `json:"apps"`
	Blockers []control.Blocker `json:"blockers"` // that hold now
}

// Parts says of each part whether it is embedded or external: a server that others run.
type Parts struct {
	Log     string `json:"log"`
	Index   string `json:"index"`
	Lake    string `json:"lake"`    // its files
	Catalog string `json:"catalog"` // of the lake's tables
}

// StackApp is an app in its versions.
type StackApp struct {
	Name      string          `json:"name"`
	Version   string          `json:"version,omitempty"` // that is deployed; empty: none is
	Pushed    []string        `json:"pushed"`            // versions, the newest first
	Instances []StackInstance `json:"instances"`
}

// StackInstance is an instance and the version that it runs.
type StackInstance struct {
	DataVersion string `json:"data_version"`
	Version     string `json:"version"`
	State       string `json:"state"`
	Serving     bool   `json:"serving,omitempty"`
}
