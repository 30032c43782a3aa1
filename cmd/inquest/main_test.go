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
	example, err := filepath.Abs("../../testdata/example.kdump")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLE", example)
			return nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
