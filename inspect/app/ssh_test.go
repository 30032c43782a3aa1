package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

var sshFlow = Flow{Transport: TCP, ClientPort: 50000, ServerPort: 22}

// TestSSHHandshake has x/crypto's client and server talk.
func TestSSHHandshake(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, s, taps := tapped(t)
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		config := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-Server_1.0 with a comment"}
		config.AddHostKey(signer)
		_, _, _, err := ssh.NewServerConn(s, config)
		done <- err
	}()
	if _, _, _, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{ClientVersion: "SSH-2.0-Client-2", HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := SSHFacts{
		Client: SSHBanner{"SSH-2.0-Client-2", "2.0", "Client-2"},
		Server: SSHBanner{"SSH-2.0-Server_1.0 with a comment", "2.0", "Server_1.0"},
	}
	for _, size := range []int{1, 5, 1 << 20} {
		f, _ := inspect(t, sshFlow, cut(taps.chunks, size))
		if f.SSH != want || f.Proto != ProtoSSH || !f.Done || f.Gap {
			t.Errorf("in pieces of %d: got %+v", size, f)
		}
	}
}

func TestSSH(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		name           string
		chunks         []chunk
		client, server string // software
		done, gap      bool
	}{
		{"server first", []chunk{{ToClient, []byte("SSH-2.0-a b\r\n")}}, "", "a", false, false},
		{"client first", []chunk{{ToServer, []byte("SSH-1.99-c\n")}}, "c", "", false, false},
		{"greeting", []chunk{{ToServer, []byte("SSH-2.0-c\r\n")}, {ToClient, []byte("welcome\r\n" + long + "\r\n\r\nSSH-2.0-s\r\n")}}, "c", "s", true, false},
		{"endless greeting", []chunk{{ToServer, []byte("SSH-2.0-c\r\n")}, {ToClient, []byte(strings.Repeat(long+"\r\n", 20))}}, "c", "", true, true},
		{"endless line", []chunk{{ToServer, []byte("SSH-2.0-" + long)}}, "", "", false, true},
		{"no software", []chunk{{ToServer, []byte("SSH-2.0\r\n")}}, "", "", false, false},
		{"no version", []chunk{{ToServer, []byte("SSH-x\r\n")}}, "", "", true, false},
		{"other", []chunk{{ToClient, []byte("220 ftp\r\n")}}, "", "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 20} {
				f, _ := inspect(t, sshFlow, cut(test.chunks, size))
				if f.SSH.Client.Software != test.client || f.SSH.Server.Software != test.server || f.Done != test.done || f.Gap != test.gap {
					t.Errorf("in pieces of %d: got %+v", size, f)
				}
			}
		})
	}
	var i Inspection
	i.Start(sshFlow)
	i.Feed(ToServer, []byte("SSH-2.0"))
	i.Gap(ToServer, 1)
	if f := i.Facts; !f.Final.Has(FieldSSHClient) || f.Final.Has(FieldSSHServer) || !f.Gap || f.Done {
		t.Errorf("behind a gap: %+v", f)
	}
	if i.Gap(ToClient, 1); !i.Facts.Done {
		t.Errorf("behind two gaps: %+v", i.Facts)
	}
}

func FuzzSSH(f *testing.F) {
	f.Add([]byte("SSH-2.0-a b\r\n"), []byte("x\nSSH-1.99-c\n"), uint8(3))
	f.Fuzz(func(t *testing.T, client, server []byte, size uint8) {
		both := []chunk{{ToServer, client}, {ToClient, server}}
		want, _ := inspect(t, sshFlow, both)
		got, _ := inspect(t, sshFlow, cut(both, int(size)+1))
		if !sameFacts(&got, &want) {
			t.Errorf("in pieces of %d:\ngot  %+v\nwant %+v", int(size)+1, got, want)
		}
	})
}

func BenchmarkSSHBanner(b *testing.B) {
	line := []byte("SSH-2.0-OpenSSH_9.9p1 Debian-3\r\n")
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var i Inspection
	for b.Loop() {
		i.Start(sshFlow)
		i.Feed(ToClient, line)
		i.Close()
	}
	if i.Facts.SSH.Server.Software != "OpenSSH_9.9p1" {
		b.Fatal(i.Facts)
	}
}
