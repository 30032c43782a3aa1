package app_test

import (
	"fmt"

	"inquest/inspect/app"
)

// Two requests in one segment are two things to judge.
func Example() {
	var i app.Inspection
	i.Start(app.Flow{Transport: app.TCP, ClientPort: 50000, ServerPort: 80})
	defer i.Close()

	segment := []byte("GET /a HTTP/1.1\r\nHost: one.example\r\n\r\n" +
		"GET /b HTTP/1.1\r\nHost: two.example\r\n\r\n")
	for len(segment) > 0 {
		n, changed := i.Feed(app.ToServer, segment)
		segment = segment[n:]
		if changed {
			fmt.Println(i.Facts.Proto, i.Facts.HTTP.Method, i.Facts.HTTP.Host, i.Facts.HTTP.Path)
		}
	}
	fmt.Println("next request may come:", !i.Facts.Final.Has(app.FieldHTTPHost))
	// Output:
	// http GET one.example /a
	// http GET two.example /b
	// next request may come: true
}

func ExamplePatterns() {
	patterns, err := app.NewPatterns([]app.Pattern{
		{Name: "shell", Kind: app.Literal, Text: "/bin/sh"},
		{Name: "sleds", Kind: app.Hex, Text: "90 90 90 90"},
		{Name: "dump", Kind: app.Regexp, Text: `(?i)union\s+select`},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var flow app.Scan
	patterns.Search(&flow, app.ToServer, []byte("cmd=/bin"))
	patterns.Search(&flow, app.ToServer, []byte("/sh&q=1 Union  Select"))
	for _, name := range []string{"shell", "sleds", "dump"} {
		index, _ := patterns.Index(name)
		fmt.Println(name, flow.Hit(index))
	}
	// Output:
	// shell true
	// sleds false
	// dump true
}
