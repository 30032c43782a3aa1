package app

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

var httpFlow = Flow{Transport: TCP, ClientPort: 50000, ServerPort: 80}

func request(lines ...string) chunk  { return chunk{ToServer, []byte(strings.Join(lines, "\r\n"))} }
func response(lines ...string) chunk { return chunk{ToClient, []byte(strings.Join(lines, "\r\n"))} }

// exchanges are the facts at each change of the request or the status, in words.
func exchanges(changes []Facts) string {
	var out []string
	version := uint32(0)
	for _, f := range changes {
		if f.Known&httpRequest != httpRequest || f.HTTP.Method == "" || f.version == version {
			continue
		}
		version = f.version
		line := fmt.Sprintf("%s %s %s %q", f.HTTP.Method, f.HTTP.Host, f.HTTP.Path, f.HTTP.UserAgent)
		if f.Known.Has(FieldHTTPStatus) && f.HTTP.Status != 0 {
			line += fmt.Sprint(" ", f.HTTP.Status)
		}
		if len(out) == 0 || out[len(out)-1] != line {
			out = append(out, line)
		}
	}
	return strings.Join(out, "; ")
}

func TestHTTP(t *testing.T) {
	big := strings.Repeat("x", maxHTTPHead)
	for _, test := range []struct {
		name   string
		chunks []chunk
		want   string
		proto  Proto
		done   bool
		gap    bool
	}{
		{"one", []chunk{request("GET /a?b=c HTTP/1.1", "Host: WWW.Example.com:8080", "User-Agent: curl/8", "", "")},
			`GET www.example.com /a?b=c "curl/8"`, ProtoHTTP, false, false},
		{"answered", []chunk{request("GET / HTTP/1.1", "Host: a", "", ""), response("HTTP/1.1 200 OK", "Content-Length: 5", "", "hello")},
			`GET a / ""; GET a / "" 200`, ProtoHTTP, false, false},
		{"pipelined with bodies", []chunk{
			request("POST /1 HTTP/1.1", "Host: a", "Content-Length: 16", "", "GET /no HTTP/1.1"+"GET /2 HTTP/1.1", "host:b", "", "PUT /3 HTTP/1.0", "HOST:\tc ", "transfer-encoding: gzip, Chunked", "",
				"5;ext=1", "GET /", "0a", "0123456789", "0", "Trailer: x", "", "HEAD /4 HTTP/1.1", "Host: d", "", ""),
			response("HTTP/1.1 100 Continue", "", "HTTP/1.1 201 Created", "Content-Length: 3", "", "abcHTTP/1.1 304 Not Modified", "Content-Length: 9", "",
				"HTTP/1.1 500 No", "Transfer-Encoding: chunked", "", "2", "ab", "0", "", "HTTP/1.1 200 OK", "Content-Length: 100", "", "")},
			`POST a /1 ""; GET b /2 ""; PUT c /3 ""; HEAD d /4 ""; HEAD d /4 "" 201; HEAD d /4 "" 304; HEAD d /4 "" 500; HEAD d /4 "" 200`, ProtoHTTP, false, false},
		{"empty lines and bare LF", []chunk{request("", "", "GET /x  HTTP/1.1\nHost: a.\nUser-Agent: b\n\n")},
			`GET a /x "b"`, ProtoHTTP, false, false},
		{"obs-fold", []chunk{request("GET / HTTP/1.1", "X: y", "Host:", "  folded.example", "User-Agent: a", "\tb", "", "")},
			`GET folded.example / "a  \tb"`, ProtoHTTP, false, false},
		{"absolute form", []chunk{request("GET http://user@Real.example:81/p?q#f HTTP/1.1", "Host: other", "", "")},
			`GET real.example /p?q#f ""`, ProtoHTTP, false, false},
		{"absolute form without a path", []chunk{request("GET HTTPS://real.example?q HTTP/1.1", "", "")},
			`GET real.example ?q ""`, ProtoHTTP, false, false},
		{"address", []chunk{request("GET / HTTP/1.1", "Host: [2001:DB8::1]:80", "", "")},
			`GET 2001:db8::1 / ""`, ProtoHTTP, false, false},
		{"first Host", []chunk{request("GET / HTTP/1.1", "Host: a", "Host: b", "", "")}, `GET a / ""`, ProtoHTTP, false, false},
		{"asterisk", []chunk{request("OPTIONS * HTTP/1.1", "Host: a", "", "")}, `OPTIONS a * ""`, ProtoHTTP, false, false},
		{"own method", []chunk{request("M-SEARCH * HTTP/1.1", "", "")}, `M-SEARCH  * ""`, ProtoHTTP, false, false},
		{"HTTP/0.9", []chunk{request("GET /old", ""), response("anything")}, `GET  /old ""`, ProtoHTTP, true, false},
		{"CONNECT", []chunk{request("CONNECT a.example:443 HTTP/1.1", "Host: b", "", ""), response("HTTP/1.1 200 Connection established", "", "")},
			`CONNECT a.example  ""; CONNECT a.example  "" 200`, ProtoHTTP, true, false},
		{"CONNECT, early data", []chunk{request("CONNECT a.example:443 HTTP/1.1", "", ""), {ToServer, []byte("\x16\x03\x01 \n")}, response("HTTP/1.1 200 OK", "", "")},
			`CONNECT a.example  ""; CONNECT a.example  "" 200`, ProtoHTTP, true, false},
		{"CONNECT refused", []chunk{request("CONNECT a:443 HTTP/1.1", "", ""), response("HTTP/1.1 405 No", "Content-Length: 0", "", ""), request("GET /b HTTP/1.1", "", "")},
			`CONNECT a  ""; CONNECT a  "" 405; GET  /b ""`, ProtoHTTP, false, false},
		{"upgrade", []chunk{request("GET /ws HTTP/1.1", "Host: a", "Upgrade: websocket", "", ""), response("HTTP/1.1 101 Switching Protocols", "", "")},
			`GET a /ws ""; GET a /ws "" 101`, ProtoHTTP, true, false},
		{"to the end of the connection", []chunk{request("GET / HTTP/1.1", "", ""), response("HTTP/1.0 200 OK", "", "HTTP/1.1 404 not this")},
			`GET  / ""; GET  / "" 200`, ProtoHTTP, false, false},
		{"HTTP/2", []chunk{request("PRI * HTTP/2.0", "", "SM", "", "")}, "", ProtoHTTP2, true, false},
		{"mail", []chunk{request("EHLO a.example", "")}, "", ProtoUnknown, true, false},
		{"no version", []chunk{request("POST /x", "Host: a", "", "")}, "", ProtoUnknown, true, false},
		{"no token", []chunk{{ToServer, []byte("GE\x01 / HTTP/1.1\r\n\r\n")}}, "", ProtoUnknown, true, false},
		{"server first", []chunk{response("HTTP/1.1 200 OK", "", "")}, "", ProtoUnknown, true, false},
		{"endless word", []chunk{request(strings.Repeat("A", 24))}, "", ProtoUnknown, true, false},
		{"endless line", []chunk{request("GET /" + big)}, "", ProtoUnknown, true, true},
		{"endless head", []chunk{request("GET / HTTP/1.1", "X: "+big)}, "", ProtoHTTP, false, true},
		{"both lengths", []chunk{request("POST / HTTP/1.1", "Host: a", "Content-Length: 3", "Transfer-Encoding: chunked", "", "0", "", "GET /b HTTP/1.1", "", "")},
			`POST a / ""; GET  /b ""`, ProtoHTTP, false, true},
		{"two lengths", []chunk{request("POST / HTTP/1.1", "Content-Length: 3, 4", "", "abc")}, `POST  / ""`, ProtoHTTP, false, true},
		{"the same length twice", []chunk{request("POST / HTTP/1.1", "Content-Length: 3", "Content-Length: 3", "", "abcGET /b HTTP/1.1", "", "")},
			`POST  / ""; GET  /b ""`, ProtoHTTP, false, false},
		{"no number", []chunk{request("POST / HTTP/1.1", "Content-Length: +3", "", "abc")}, `POST  / ""`, ProtoHTTP, false, true},
		{"unknown coding", []chunk{request("POST / HTTP/1.1", "Transfer-Encoding: x", "", "abc")}, `POST  / ""`, ProtoHTTP, false, true},
		{"bad chunk", []chunk{request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "", "g")}, `POST  / ""`, ProtoHTTP, false, true},
		{"huge chunk", []chunk{request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "", "1234567812345678")}, `POST  / ""`, ProtoHTTP, false, true},
		{"bad end of chunk", []chunk{request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "", "1", "abc")}, `POST  / ""`, ProtoHTTP, false, true},
		{"Latin-1", []chunk{request("GET /\xe9 HTTP/1.1", "Host: \xc9", "", "")}, "GET \uFFFD /\uFFFD \"\"", ProtoHTTP, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 5, 50, 1 << 20} {
				if len(test.chunks[0].data) > 1<<12 && size < 50 {
					continue
				}
				f, changes := inspect(t, httpFlow, cut(test.chunks, size))
				got := exchanges(changes)
				if got != test.want || f.Proto != test.proto || f.Done != test.done || f.Gap != test.gap {
					t.Errorf("in pieces of %d: got proto %v, done %v, gap %v\ngot  %s\nwant %s", size, f.Proto, f.Done, f.Gap, got, test.want)
				}
			}
		})
	}
}

// TestHTTPKnown follows what is settled when.
func TestHTTPKnown(t *testing.T) {
	var i Inspection
	i.Start(httpFlow)
	step := func(name string, c chunk, request, status bool) {
		t.Helper()
		for data := c.data; len(data) > 0; {
			n, _ := i.Feed(c.dir, data)
			data = data[n:]
		}
		known := i.Facts.Known
		if known.Has(FieldHTTPHost) != request || known.Has(FieldHTTPStatus) != status || i.Facts.Final.Has(FieldHTTPHost) {
			t.Errorf("%s: known %b, final %b", name, known, i.Facts.Final)
		}
	}
	step("half a line", request("GET / HT"), false, false)
	if i.Facts.Known.Has(FieldProto) {
		t.Error("half a line is no HTTP yet")
	}
	step("a line", request("TP/1.1", "Ho"), false, false)
	if !i.Facts.Final.Has(FieldProto) || !i.Facts.Final.Has(FieldTLSSNI) {
		t.Error("a whole line is HTTP")
	}
	step("a head", request("st: a", "Content-Length: 3", "", "x"), true, false)
	step("its body", request("yz"), true, false)
	step("the answer", response("HTTP/1.1 200 OK", "Content-Length: 3", "", "x"), true, true)
	step("the next head", request("GET"), false, true)
	step("its end", request(" /2 HTTP/1.1", "", ""), true, false)
	if i.Facts.HTTP != (HTTPFacts{Method: "GET", Path: "/2"}) {
		t.Errorf("got %+v", i.Facts.HTTP)
	}
}

func TestHTTPGap(t *testing.T) {
	head := request("POST / HTTP/1.1", "Host: a", "Content-Length: 100", "", "")
	for _, test := range []struct {
		name   string
		before []chunk
		lost   int
		known  bool // the next request is found
	}{
		{"within a body", []chunk{head}, 50, true},
		{"all of a body", []chunk{head}, 100, true},
		{"more than a body", []chunk{head}, 101, false},
		{"a chunk", []chunk{request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "", "64", "")}, 100, true},
		{"a head", []chunk{request("GET / HTTP/1.1", "")}, 10, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var i Inspection
			i.Start(httpFlow)
			feed := func(data []byte) {
				for len(data) > 0 {
					n, _ := i.Feed(ToServer, data)
					data = data[n:]
				}
			}
			for _, c := range test.before {
				feed(c.data)
			}
			i.Gap(ToServer, test.lost)
			feed(bytes.Repeat([]byte("x"), max(0, 100-test.lost)))
			if test.name == "a chunk" {
				feed([]byte("\r\n0\r\n\r\n"))
			}
			feed([]byte("GET /next HTTP/1.1\r\n\r\n"))
			if known := i.Facts.HTTP.Path == "/next"; known != test.known || !i.Facts.Gap {
				t.Errorf("got %+v", i.Facts)
			}
			if !test.known && !i.Facts.Final.Has(FieldHTTPHost) {
				t.Error("not final")
			}
		})
	}
	// Before anything is recognised, a gap ends the inspection.
	var i Inspection
	i.Start(httpFlow)
	i.Feed(ToServer, []byte("GE"))
	if !i.Gap(ToServer, 1) || !i.Facts.Done || !i.Facts.Gap {
		t.Errorf("got %+v", i.Facts)
	}
}

// TestHTTPWriter has net/http write requests, one behind the other.
func TestHTTPWriter(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		var stream bytes.Buffer
		var want []string
		for range 1 + random.IntN(5) {
			body := strings.Repeat("GET /body HTTP/1.1\r\n\r\n", random.IntN(50))
			r := &http.Request{
				Method: []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}[random.IntN(6)],
				URL:    &url.URL{Scheme: "http", Host: fmt.Sprintf("h%d.Example:%d", random.IntN(9), 1+random.IntN(65535)), Path: "/a b/é", RawQuery: "q=1"},
				Header: http.Header{"User-Agent": {fmt.Sprint("agent/", len(want))}, "Accept": {"a", "b"}},
				Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
			}
			if random.IntN(2) == 0 {
				r.ContentLength = -1
				r.TransferEncoding = []string{"chunked"}
			}
			write := r.Write
			if random.IntN(3) == 0 {
				write = r.WriteProxy
			}
			if err := write(&stream); err != nil {
				t.Fatal(err)
			}
			host, _, _ := strings.Cut(strings.ToLower(r.URL.Host), ":")
			want = append(want, fmt.Sprintf("%s %s %s %q", r.Method, host, r.URL.RequestURI(), r.Header.Get("User-Agent")))
		}
		f, changes := inspect(t, httpFlow, cut([]chunk{{ToServer, stream.Bytes()}}, 1+random.IntN(3000)))
		got := exchanges(changes)
		if want := strings.Join(want, "; "); got != want || f.Gap {
			t.Fatalf("%s\ngot  %s\nwant %s", stream.Bytes(), got, want)
		}
	}
}

func FuzzHTTP(f *testing.F) {
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET http://b:1/ HTTP/1.1\r\nUser-Agent: c\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 304 No\r\n\r\n"), uint8(4))
	f.Add([]byte("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\nHEAD / HTTP/1.1\r\n\r\n"), []byte("HTTP/1.0 100 A\r\n\r\nHTTP/1.1 500 B\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("CONNECT a:1 HTTP/1.1\r\n\r\n\x16\x03"), []byte("HTTP/1.1 200 A\r\n\r\n"), uint8(0))
	f.Add([]byte("\r\nGET / HTTP/1.1\nHost: [::1]\n a\n\n"), []byte{}, uint8(2))
	f.Fuzz(func(t *testing.T, client, server []byte, size uint8) {
		both := []chunk{{ToServer, client}, {ToClient, server}}
		want, changes := inspect(t, httpFlow, both)
		got, inPieces := inspect(t, httpFlow, cut(both, int(size)+1))
		if !sameFacts(&got, &want) || exchanges(changes) != exchanges(inPieces) {
			t.Errorf("in pieces of %d:\ngot  %+v\nwant %+v", int(size)+1, got, want)
		}
		// What net/http takes for requests, and has no doubt of, is seen here likewise.
		if want.Gap || want.Done || len(server) > 0 || len(client) > 1<<12 {
			return
		}
		var expect []string
		for reader := bufio.NewReader(bytes.NewReader(client)); ; {
			r, err := http.ReadRequest(reader)
			if err != nil || r.ProtoMajor != 1 {
				break
			}
			expect = append(expect, r.Method+" "+r.RequestURI)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				break
			}
		}
		var seen []string
		version := uint32(0)
		for _, f := range changes {
			if f.Known&httpRequest == httpRequest && f.HTTP.Method != "" && f.version != version && f.HTTP.Status == 0 {
				version = f.version
				seen = append(seen, f.HTTP.Method)
			}
		}
		// Here more may be seen: spaces and versions are taken leniently.
		for k, r := range expect {
			if k >= len(seen) || !strings.HasPrefix(r, seen[k]+" ") {
				t.Errorf("net/http reads %q, here %q is seen: %+v", expect, seen, want)
				break
			}
		}
	})
}

func BenchmarkHTTPRequest(b *testing.B) {
	head := []byte("GET /static/images/logo.png?v=12 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: image/avif,image/webp,*/*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nReferer: http://www.example.com/\r\nCookie: session=0123456789abcdef\r\n\r\n")
	b.Run("first", func(b *testing.B) {
		b.SetBytes(int64(len(head)))
		b.ReportAllocs()
		var i Inspection
		for b.Loop() {
			i.Start(httpFlow)
			i.Feed(ToServer, head)
			i.Close()
		}
		if i.Facts.HTTP.Host != "www.example.com" {
			b.Fatal(i.Facts)
		}
	})
	b.Run("next", func(b *testing.B) {
		b.SetBytes(int64(len(head)))
		b.ReportAllocs()
		answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		var i Inspection
		i.Start(httpFlow)
		for b.Loop() {
			i.Feed(ToServer, head)
			i.Feed(ToClient, answer)
		}
		if i.Facts.HTTP.Status != 200 {
			b.Fatal(i.Facts)
		}
	})
	b.Run("body", func(b *testing.B) {
		body := make([]byte, 1460)
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		var i Inspection
		i.Start(httpFlow)
		i.Feed(ToServer, []byte("POST / HTTP/1.1\r\nContent-Length: 900000000000000000\r\n\r\n"))
		for b.Loop() {
			i.Feed(ToServer, body)
		}
	})
}
