//go:build netns

package verdict

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// servers are what a server namespace offers.
const (
	httpPort = "80"
	tlsPort  = "443"
	dnsPort  = "53"
	echoPort = "7"
)

// bulk is what /bulk sends.
const bulk = 8 << 20

// serve starts HTTP, HTTPS, DNS and echo servers.
func (n *namespace) serve(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "this is %s", r.Host) })
	mux.HandleFunc("/bulk", func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<16)
		for range bulk / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	listen := func(port string) net.Listener {
		l := in(n, func() (net.Listener, error) { return net.Listen("tcp", ":"+port) })
		t.Cleanup(func() { l.Close() })
		return l
	}
	quiet := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)} // handshakes are cut off on purpose
	go quiet.Serve(listen(httpPort))
	go quiet.Serve(tls.NewListener(listen(tlsPort), &tls.Config{Certificates: []tls.Certificate{certificate(t)}}))
	echo := listen(echoPort)
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	for port, answer := range map[string]func([]byte) []byte{echoPort: bytes.Clone, dnsPort: answerDNS} {
		c := in(n, func() (net.PacketConn, error) { return net.ListenPacket("udp", ":"+port) })
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				k, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if a := answer(b[:k]); a != nil {
					c.WriteTo(a, from)
				}
			}
		}()
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// answerDNS says that every name is at 192.0.2.1.
func answerDNS(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response = true
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
		Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
	}}
	b, _ := m.Pack()
	return b
}

// What is to come may take its time, on a machine without hardware virtualization too;
// what is not to come is not waited for that long.
const (
	patience = 60 * time.Second
	brief    = 2 * time.Second
)

// get asks the server for a page by HTTP or HTTPS, on a connection of its own.
func (n *namespace) get(server, scheme, host, path string, timeout time.Duration) (string, error) {
	port := map[string]string{"http": httpPort, "https": tlsPort}[scheme]
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: host},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return n.dial("tcp", net.JoinHostPort(server, port), timeout)
		},
	}
	client := &http.Client{Transport: transport, Timeout: timeout}
	r, err := client.Get(scheme + "://" + host + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// lookup asks the server for a name.
func (n *namespace) lookup(server, name string, timeout time.Duration) error {
	c, err := n.dial("udp", net.JoinHostPort(server, dnsPort), timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	query, err := m.Pack()
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write(query); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 2048))
	return err
}

// ping sends a line over TCP or UDP and waits for it to come back.
func ping(c net.Conn, timeout time.Duration) error {
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 6))
	return err
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) || os.IsTimeout(err) }

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// stream sends numbered datagrams to an echo server, and counts what comes back.
type stream struct {
	conn           net.Conn
	sent, received atomic.Int64
	stop           chan struct{}
	done           chan struct{}
}

// stream sends 5000 a second, as long as no more than window are under way.
func (n *namespace) stream(t *testing.T, server string, window int64) *stream {
	t.Helper()
	conn, err := n.dial("udp", net.JoinHostPort(server, echoPort), patience)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{conn: conn, stop: make(chan struct{}), done: make(chan struct{})}
	t.Cleanup(func() { conn.Close() })
	go func() {
		defer close(s.done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			for i := 0; i < 50 && s.sent.Load()-s.received.Load() < window; i++ {
				if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(s.sent.Load()))); err == nil {
					s.sent.Add(1)
				}
			}
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			if _, err := conn.Read(b); err == nil {
				s.received.Add(1)
			} else if errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	return s
}

// end stops sending and returns how many were sent and how many came back.
func (s *stream) end() (sent, received int64) {
	close(s.stop)
	<-s.done
	sent = s.sent.Load()
	for end := time.Now().Add(2 * time.Second); s.received.Load() < sent && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return sent, s.received.Load()
}
