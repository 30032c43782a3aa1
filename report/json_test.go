package report

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"inquest/stack"
)

// paths collects the keys of a document: "findings[].evidence[].text". Registers are
// one key, whatever there is of them.
func paths(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			into[at+key] = true
			if !strings.HasSuffix(key, "registers") {
				paths(value, at+key+".", into)
			}
		}
	case []any:
		for _, value := range v {
			paths(value, strings.TrimSuffix(at, ".")+"[].", into)
		}
	}
}

// keys lists the keys of what v is as JSON.
func keys(t *testing.T, v any) []byte {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back any
	if err := json.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	paths(back, "", all)
	return []byte(strings.Join(slices.Sorted(maps.Keys(all)), "\n") + "\n")
}

// TestKeys pins the names that docs/json.md promises.
func TestKeys(t *testing.T) {
	c, findings := example(t)
	golden(t, "explain_keys.txt", keys(t, JSON(c, findings)))
	tr := crash("").Trace
	golden(t, "bt_keys.txt", keys(t, StacksJSON("9.8", tr.Task, []*stack.Trace{tr})))
}

// TestValues pins how values are written: addresses as strings, what is not known as null.
func TestValues(t *testing.T) {
	tr := crash("").Trace
	doc, err := json.MarshalIndent(StacksJSON("9.8", tr.Task, []*stack.Trace{tr}), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bt.json", append(doc, '\n'))
}

func TestEmptyJSON(t *testing.T) {
	doc, err := json.Marshal(StacksJSON("9.8", nil, nil))
	if want := `{"release":"9.8","crashed":null,"tasks":[]}`; err != nil || string(doc) != want {
		t.Errorf("%s, %v, want %s", doc, err, want)
	}
}
