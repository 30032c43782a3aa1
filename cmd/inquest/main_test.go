package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"inquest": main})
}

// TestScripts runs the sessions in testdata: what a user types, and what comes.
func TestScripts(t *testing.T) {
	files := map[string]string{
		"EXAMPLE": "../../testdata/example.kdump",
		"CONFUSE": "../../explain/testdata/confuse-container.kdump", // has modules
		"CAPTURE": "testdata/three-flows.pcap",
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for name, path := range files {
				abs, err := filepath.Abs(path)
				if err != nil {
					return err
				}
				env.Setenv(name, abs)
			}
			return nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
